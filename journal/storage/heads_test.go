package storage

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// A log that lost the end of what was acknowledged, in a process that was killed before any of it was
// in a table of the index, is refused, verify says so, and a rebuild accepts it.
func TestALostEndAfterAKill(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir, killed := t.TempDir(), t.TempDir()
	j := openJournal(t, dir)
	for i := range 20 {
		if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", journal.Version(i), string(rune('a'+i)),
			1)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := readJournal(dir) // as a kill leaves it
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for name, f := range all {
		// Values without pointers would be found, and pointers without values are damage of another kind.
		if ext := filepath.Ext(name); (ext == ".mem" || ext == ".vlog") && len(f.Content) > 100 {
			f.Content[len(f.Content)-100] ^= 1
		}
	}
	if err := all.Write(killed); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, killed)
	if err := j.Damage("bank"); journal.KindOf(err) != journal.KindCorrupt ||
		!strings.Contains(err.Error(), "lost its end") {
		t.Errorf("the damage is %v", err)
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	e, err := Open(killed, Options{})
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Run(ctx, e, verify.Options{})
	if err != nil || report.Found != 1 || !strings.Contains(report.Problems[0].Detail, "lost its end") {
		t.Errorf("verify finds %v, %v", report.Problems, err)
	}
	if err := commitlog.Rebuild(ctx, e, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, killed)
	if err := j.Damage("bank"); err != nil {
		t.Errorf("after a rebuild: %v", err)
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

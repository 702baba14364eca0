package lsm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// A store that has met damage, in a read or in a merge that ended it, is set aside: it is empty and
// good, and the damaged files are beside it, those of the latest damage only.
func TestSetAside(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "index")
	s := openTest(t, dir, unhurried())
	for round := range 2 {
		addRuns(t, s, 2, 10_000)
		tables, err := filepath.Glob(filepath.Join(dir, "*"+tableExt))
		if err != nil || len(tables) != 2 {
			t.Fatal(tables, err)
		}
		content, err := os.ReadFile(tables[1])
		if err != nil {
			t.Fatal(err)
		}
		content[20] ^= 1
		if err := os.WriteFile(tables[1], content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Compact(ctx); journal.KindOf(err) != journal.KindCorrupt {
			t.Fatalf("round %d: compacting: %v", round, err)
		}
		if err := s.Update(ctx, numbered(0, 1)); journal.KindOf(err) != journal.KindCorrupt {
			t.Errorf("round %d: an update of a store that has failed: %v", round, err)
		}
		if err := s.SetAside(ctx); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		kept, err := filepath.Glob(filepath.Join(dir+asideSuffix, "*"+tableExt))
		if err != nil || len(kept) != 2 {
			t.Errorf("round %d: kept are %v, %v", round, kept, err)
		}
		if there, err := os.ReadFile(filepath.Join(dir+asideSuffix, filepath.Base(tables[1]))); err != nil || !bytes.Equal(there, content) {
			t.Errorf("round %d: the damaged table is not what was kept: %v", round, err)
		}
		if err := (model{}).compare(s); err != nil {
			t.Errorf("round %d: set aside, %v", round, err)
		}
	}
	if err := errors.Join(s.Update(ctx, numbered(0, 10)), s.Compact(ctx), s.Close()); err != nil {
		t.Error(err)
	}
	s = openTest(t, dir, unhurried())
	if ok, err := s.Has(ctx, []byte("k000000009")); !ok || err != nil {
		t.Errorf("has: %v, %v", ok, err)
	}
	if err := s.Check(ctx); err != nil {
		t.Error(err)
	}
	closeTest(t, s)

	// What was set aside stays for some time, and then goes.
	aside := dir + asideSuffix
	for _, old := range []bool{false, true} {
		if old {
			then := time.Now().Add(-asideKeep - time.Hour)
			if err := os.Chtimes(aside, then, then); err != nil {
				t.Fatal(err)
			}
		}
		closeTest(t, openTest(t, dir, unhurried()))
		if _, err := os.Stat(aside); (err != nil) != old {
			t.Errorf("set aside long ago: %t; it is there: %v", old, err)
		}
	}
}

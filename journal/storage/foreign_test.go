package storage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// makeTwin makes a journal whose batches stand where those of each other twin do, in
// files of the same names, and whose events say whose they are.
func makeTwin(t *testing.T, name string, rounds int) string {
	t.Helper()
	dir := t.TempDir()
	for round := range rounds {
		j := openJournal(t, dir)
		for i := round * 10; i < round*10+10; i++ {
			c := journaltest.Commit("bank", "k", journal.Version(i), fmt.Sprint("c", i), 1)
			c.Events[0].Data = []byte(name)
			if i == 5 {
				c.Command.Data = journaltest.Noise(700<<10, 0) // a batch in parts
			}
			if _, err := journaltest.Append(j, c); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Files of another journal, one or all, are found where they are read, and no event of
// that journal is served.
func TestFilesOfAnotherJournal(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"log/000001.sst", "log/000002.sst", "log/000001.vlog", "log/*.vlog", "log/*",
		"index/*"} {
		t.Run(strings.ReplaceAll(what, "/", " "), func(t *testing.T) {
			ours, others := makeTwin(t, "ours", 2), makeTwin(t, "others", 2)
			replace(t, ours, others, what)
			j := openJournal(t, ours)
			defer j.Close(context.Background())
			served := 0
			note := func(e *journal.Event) error {
				served++
				if string(e.Data) != "ours" {
					t.Errorf("event %d is of another journal", e.Position)
				}
				return nil
			}
			err := j.Read(context.Background(), "bank", 0, 0, note)
			if strings.HasPrefix(what, "log") {
				// A file of values is put aside before anything is read.
				if journal.KindOf(err) != journal.KindCorrupt || !strings.HasSuffix(what, ".vlog") &&
					!strings.Contains(err.Error(), "another journal") {
					t.Errorf("the log is read with %v", err)
				}
				return
			}
			if err != nil || served != 20 {
				t.Errorf("%d events, %v", served, err)
			}
			if v, err := j.Load(context.Background(), "bank", "k", 0, note); v != 20 || err != nil {
				t.Errorf("the entity is at %d, %v", v, err)
			}
		})
	}
}

// replace copies files of one journal over another's.
func replace(t *testing.T, to, from, what string) {
	t.Helper()
	all, err := readJournal(from)
	if err != nil {
		t.Fatal(err)
	}
	some := journaltest.Files{}
	for name, f := range all {
		if ok, _ := filepath.Match(what, name); ok {
			some[name] = f
		}
	}
	if len(some) == 0 {
		t.Fatal("nothing to replace")
	}
	if strings.HasSuffix(what, "*") {
		if err := os.RemoveAll(filepath.Join(to, filepath.Dir(what))); err != nil {
			t.Fatal(err)
		}
	}
	if err := some.WriteInto(to); err != nil {
		t.Fatal(err)
	}
}

// An older copy of the log's files over newer ones: index and heads know better.
func TestAnOlderLogOverANewerOne(t *testing.T) {
	t.Parallel()
	ours := makeTwin(t, "ours", 1)
	older, err := readJournal(ours)
	if err != nil {
		t.Fatal(err)
	}
	j := openJournal(t, ours)
	for _, log := range []journal.LogName{"bank", "orders"} {
		at := journal.Version(0)
		if log == "bank" {
			at = 10
		}
		if _, err := journaltest.Append(j, journaltest.Commit(log, "k", at, "newer", 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(ours, "log")); err != nil {
		t.Fatal(err)
	}
	for name := range older {
		if !strings.HasPrefix(name, "log") {
			delete(older, name)
		}
	}
	if err := older.WriteInto(ours); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, ours)
	defer j.Close(context.Background())
	if got := fmt.Sprint(j.DamagedLogs()); got != "[bank orders]" {
		t.Errorf("damaged are %s", got)
	}
	if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", 10, "other", 1)); journal.KindOf(
		err) != journal.KindCorrupt || !strings.Contains(err.Error(), "older copy") {
		t.Errorf("a commit: %v", err)
	}
}

// A lost or damaged lineage is found again in the log.
func TestALostLineage(t *testing.T) {
	t.Parallel()
	dir := makeTwin(t, "ours", 1)
	d := openDirectory(t, dir, Options{})
	want := d.log.Lineage()
	if want>>62&1 == 0 {
		t.Fatalf("the lineage is %x", want)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"damaged": func(path string) error { return os.WriteFile(path, []byte("0123 45\n"), 0o600) },
	} {
		if err := spoil(filepath.Join(dir, "lineage")); err != nil {
			t.Fatal(err)
		}
		d, err := open(dir, Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d.log.Lineage() != want {
			t.Errorf("%s: it is %x, not %x", name, d.log.Lineage(), want)
		}
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "index"+asideSuffix)); !os.IsNotExist(err) {
		t.Errorf("the index was put aside: %v", err)
	}
}

// Without its lineage and with its list of tables emptied, a journal is not taken for a new one: what the values are is
// still there.
func TestAnEmptiedLogIsNoNewJournal(t *testing.T) {
	t.Parallel()
	dir := makeTwin(t, "ours", 1)
	if err := os.Remove(filepath.Join(dir, "lineage")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "log", "MANIFEST"), 22); err != nil { // within its first entry
		t.Fatal(err)
	}
	j := openJournal(t, dir)
	defer j.Close(context.Background())
	if _, v, err := journaltest.Hydrate(j, "bank", "k"); v != 10 || err != nil || len(j.DamagedLogs()) > 0 {
		t.Errorf("the entity is at version %d, %v; damaged are %v", v, err, j.DamagedLogs())
	}
}

package storage

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

var indexBits = flag.Bool("damage.bits", false, "TestDamageOfTheIndexIsNoticedByNobody flips each bit of each file")

// Whatever happens to a file of the index, the next opening succeeds, no log is called damaged, and
// everything can be read and written as before.
func TestDamageOfTheIndexIsNoticedByNobody(t *testing.T) {
	t.Parallel()
	cases, seed := prove.Rounds(t, 60, 1000), prove.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	made, work := t.TempDir(), filepath.Join(t.TempDir(), "work")
	want := makeSmall(t, made)
	all, err := readJournal(made)
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(all))
	names = slices.DeleteFunc(names,
		func(name string) bool { return !strings.HasPrefix(name, "index"+string(filepath.Separator)) })
	if len(names) < 3 { // a table, a manifest and lineage
		t.Fatalf("the index has the files %v only", names)
	}
	for _, name := range names { // whole files
		path, other := filepath.Join(work, name), filepath.Join(work, names[rng.IntN(len(names))])
		for what, damage := range map[string]func() error{
			"removed": func() error { return os.Remove(path) },
			"emptied": func() error { return os.Truncate(path, 0) },
			"cut": func() error {
				return os.Truncate(path,
					rng.Int64N(max(all[name].Size, 1)))
			},
			"longer":                            func() error { return os.Truncate(path, all[name].Size+1) },
			"a directory":                       func() error { return becomeDir(path) },
			"swapped with " + other[len(work):]: func() error { return swap(path, other) },
		} {
			lookAtSmall(t, all, work, name+" "+what, damage, want)
		}
	}
	lookAtSmall(t, all, work, "the index is gone", func() error { return os.RemoveAll(filepath.Join(work, "index")) },
		want)
	lookAtSmall(t, all, work, "the index is a file", func() error {
		if err := os.RemoveAll(filepath.Join(work, "index")); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(work, "index"), []byte("no index"), 0o600)
	}, want)
	flip := func(name string, at, bit int) {
		lookAtSmall(t, all, work, fmt.Sprintf("bit %d of byte %d of %s flipped", bit, at, name), func() error {
			content := bytes.Clone(all[name].Content)
			content[at] ^= 1 << bit
			return os.WriteFile(filepath.Join(work, name), content, 0o600)
		}, want)
	}
	for range cases {
		name := names[rng.IntN(len(names))]
		if len(all[name].Content) == 0 {
			continue // it is its name that counts
		}
		flip(name, rng.IntN(len(all[name].Content)), rng.IntN(8))
	}
	for _, name := range names {
		for bit := 0; *indexBits && bit < 8*len(all[name].Content); bit++ {
			flip(name, bit/8, bit%8)
		}
	}
}

func becomeDir(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(path, "file"), nil, 0o600)
}

func swap(a, b string) error {
	if a == b {
		return nil
	}
	for _, names := range [][2]string{{a, a + ".x"}, {b, a}, {a + ".x", b}} {
		if err := os.Rename(names[0], names[1]); err != nil {
			return err
		}
	}
	return nil
}

// makeSmall makes a journal with all that an index can have, and returns what can be read of it.
func makeSmall(t *testing.T, dir string) string {
	t.Helper()
	ctx := context.Background()
	for round := range 2 {
		e, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		j, err := commitlog.Open(ctx, e, commitlog.Options{MaxGroupCommits: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i := round * 12; i < (round+1)*12; i++ {
			if _, err := journaltest.Append(j, journaltest.Commit("bank", fmt.Sprint("k", i%2), journal.Version(i/2),
				fmt.Sprint("c", i), 1)); err != nil {
				t.Fatal(err)
			}
		}
		if round == 1 {
			for _, key := range []string{"k0", "k1"} {
				if !j.PutSnapshot(ctx, "bank", key, journaltest.Snapshot("bank", key, 12)) {
					t.Fatal("the snapshot is not kept")
				}
			}
		} else if _, err := j.Retain(ctx, "bank", journal.Retention{Before: 5, Force: true}); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return readSmall(t, dir, "as it was made", false)
}

// readSmall opens a journal, and returns all that can be read of it. write has it take a commit, too.
func readSmall(t *testing.T, dir, what string, write bool) string {
	t.Helper()
	ctx := context.Background()
	e, err := Open(dir, Options{})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer e.Close()
	j, err := commitlog.Open(ctx, e, commitlog.Options{})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if logs := j.DamagedLogs(); len(logs) > 0 {
		t.Errorf("%s: %v is called damaged: %v", what, logs, j.Damage(logs[0]))
	}
	var all strings.Builder
	note := func(e *journal.Event) error {
		fmt.Fprintf(&all, "%d %s %d %s %s\n", e.Position, e.Key, e.Version, e.CommandID, e.Data)
		return nil
	}
	if err := j.Read(ctx, "bank", j.First("bank")-1, 0, note); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	for _, key := range []string{"k0", "k1"} {
		v, err := j.Load(ctx, "bank", key, 4, note)
		fmt.Fprintln(&all, key, v, err)
	}
	for i := range 24 {
		found, err := j.Answer(ctx, "bank", journal.CommandID(fmt.Sprint("c", i)),
			func(c *journal.Committed, r journal.Receipt, err error) {
				fmt.Fprintf(&all, "%s at %d: %v\n", c.Command.Reply, r.First(), err)
			})
		fmt.Fprintln(&all, i, found, err)
	}
	if write {
		if _, err := journaltest.Append(j, journaltest.Commit("bank", "k0", 12, "new", 1)); err != nil {
			t.Errorf("%s: a commit: %v", what, err)
		}
	}
	if err := j.Close(ctx); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	return all.String()
}

func lookAtSmall(t *testing.T, all journaltest.Files, dir, what string, damage func() error, want string) {
	t.Helper()
	if err := all.Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := damage(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if got := readSmall(t, dir, what, true); got != want {
		t.Errorf("%s: it reads\n%s\nwhere it was\n%s", what, got, want)
	}
}

// An error of the system is no damage: the index stays.
func TestTheIndexStaysWhenTheSystemFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := makeSmall(t, dir)
	tables, err := filepath.Glob(filepath.Join(dir, "index", "*", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables: %v, %v", tables, err)
	}
	manifests, err := filepath.Glob(filepath.Join(dir, "index", "*", "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("manifests: %v, %v", manifests, err)
	}
	for _, path := range append(tables, manifests[len(manifests)-1]) {
		away := filepath.Join(dir, "away")
		if err := errors.Join(os.Rename(path, away), os.Symlink(path, path)); err != nil { // ELOOP when it is opened
			t.Fatal(err)
		}
		if e, err := Open(dir, Options{}); err == nil || journal.KindOf(err) == journal.KindCorrupt {
			t.Errorf("%s cannot be opened, and the journal is: %v", path, err)
			if err == nil {
				_ = e.Close()
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "index"+asideSuffix)); err == nil {
			t.Fatalf("%s cannot be opened, and the index was set aside", path)
		}
		if err := errors.Join(os.Remove(path), os.Rename(away, path)); err != nil {
			t.Fatal(err)
		}
	}
	if got := readSmall(t, dir, "afterwards", false); got != want {
		t.Errorf("it reads\n%s\nwhere it was\n%s", got, want)
	}
}

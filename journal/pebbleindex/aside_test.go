package pebbleindex

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

// A store that has met damage, in a read or in a compaction that ended it, is set aside: it is empty and
// good, and the damaged files are beside it, those of the latest damage only.
func TestSetAside(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "index")
	s := openTest(t, dir, unhurried())
	for round := range 2 {
		addTables(t, s, 2)
		table := damageTable(t, dir)
		content, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Compact(ctx); journal.KindOf(err) != journal.KindCorrupt {
			t.Fatalf("round %d: compacting: %v", round, err)
		}
		if err := s.Update(ctx, []journal.Pair{pair("a", "b")}); journal.KindOf(err) != journal.KindCorrupt {
			t.Errorf("round %d: an update of a store that has failed: %v", round, err)
		}
		if err := s.SetAside(ctx); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		kept, err := filepath.Glob(filepath.Join(dir+asideSuffix, "*", "*.sst"))
		if err != nil || len(kept) != 2 {
			t.Errorf("round %d: kept are %v, %v", round, kept, err)
		}
		name, err := filepath.Rel(dir, table)
		if err != nil {
			t.Fatal(err)
		}
		if there, err := os.ReadFile(filepath.Join(dir+asideSuffix, name)); err != nil || !bytes.Equal(there, content) {
			t.Errorf("round %d: the damaged table is not what was kept: %v", round, err)
		}
		if err := (model{}).compare(s); err != nil {
			t.Errorf("round %d: set aside, %v", round, err)
		}
	}
	addTables(t, s, 1)
	if err := errors.Join(s.Compact(ctx), s.Close()); err != nil {
		t.Error(err)
	}
	s = openTest(t, dir, unhurried())
	if ok, err := s.Has(ctx, []byte("g00/000000")); !ok || err != nil {
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

// Who makes a damaged store empty has a good one.
func TestClearMendsDamage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	s := openTest(t, dir, unhurried())
	addTables(t, s, 1)
	damageTable(t, dir)
	if _, _, err := s.Get(ctx, []byte("g00/000000")); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("get: %v", err)
	}
	if err := s.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	fillTest(t, s, 10, 0)
	closeTest(t, s)
	s = openTest(t, dir, unhurried())
	if ok, err := s.Has(ctx, []byte("g00/000000")); !ok || err != nil {
		t.Errorf("has: %v, %v", ok, err)
	}
	closeTest(t, s)
}

func closeTest(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

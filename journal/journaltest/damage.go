package journaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// spoiled has one operation of an index fail, once.
type spoiled struct {
	at    int   // the operation that fails, counted down
	err   error // with this
	met   bool  // it has failed
	aside int   // calls of SetAside
}

func (s *spoiled) index(of journal.Storage) *spoiledIndex { return &spoiledIndex{of.Index, s} }

func (s *spoiled) operation() error {
	if s.at--; s.at == 0 {
		s.met = true
		return s.err
	}
	return nil
}

type spoiledIndex struct {
	journal.IndexStore
	s *spoiled
}

func (x *spoiledIndex) Update(ctx context.Context, pairs []journal.Pair) error {
	if err := x.s.operation(); err != nil {
		return err
	}
	return x.IndexStore.Update(ctx, pairs)
}

func (x *spoiledIndex) Delete(ctx context.Context, keys [][]byte) error {
	if err := x.s.operation(); err != nil {
		return err
	}
	return x.IndexStore.Delete(ctx, keys)
}

func (x *spoiledIndex) DeleteRange(ctx context.Context, from, to []byte) error {
	if err := x.s.operation(); err != nil {
		return err
	}
	return x.IndexStore.DeleteRange(ctx, from, to)
}

func (x *spoiledIndex) Clear(ctx context.Context) error {
	if err := x.s.operation(); err != nil {
		return err
	}
	return x.IndexStore.Clear(ctx)
}

func (x *spoiledIndex) Get(ctx context.Context, key []byte) ([]byte, bool, error) {
	if err := x.s.operation(); err != nil {
		return nil, false, err
	}
	return x.IndexStore.Get(ctx, key)
}

func (x *spoiledIndex) Has(ctx context.Context, key []byte) (bool, error) {
	if err := x.s.operation(); err != nil {
		return false, err
	}
	return x.IndexStore.Has(ctx, key)
}

func (x *spoiledIndex) Scan(ctx context.Context, prefix, from []byte, yield func(key, value []byte) error) error {
	if err := x.s.operation(); err != nil {
		return err
	}
	return x.IndexStore.Scan(ctx, prefix, from, yield)
}

func (x *spoiledIndex) Last(ctx context.Context, prefix []byte) ([]byte, bool, error) {
	if err := x.s.operation(); err != nil {
		return nil, false, err
	}
	return x.IndexStore.Last(ctx, prefix)
}

func (x *spoiledIndex) SetAside(ctx context.Context) error {
	x.s.aside++
	return x.IndexStore.SetAside(ctx)
}

// testDamagedIndex has each operation of the index fail that opening a journal needs, one after the
// other. Damage costs nobody anything: the index is set aside and rebuilt in the same opening. Any
// other error ends the opening and leaves the index as it is.
func testDamagedIndex(t *testing.T, open Reopener) {
	ctx := context.Background()
	j := openJournal(t, open, commitlog.Options{MaxGroupCommits: 1})
	for i := range 30 {
		_, err := Append(j, Commit("bank", fmt.Sprint("k", i%3), journal.Version(i/3), fmt.Sprint("c", i), 1))
		must(t, err)
		_, err = Append(j, Commit("orders", "o", journal.Version(i), fmt.Sprint("o", i), 1))
		must(t, err)
	}
	for k := range 3 {
		key := fmt.Sprint("k", k)
		if !j.PutSnapshot(ctx, "bank", key, Snapshot("bank", key, 10)) {
			t.Fatalf("the snapshot of %s is not kept", key)
		}
	}
	must(t, j.Close(ctx))
	j = openJournal(t, open, commitlog.Options{})
	_, err := j.Retain(ctx, "bank", journal.Retention{Before: 15})
	must(t, err)
	must(t, j.Close(ctx))
	e := open(t)
	must(t, commitlog.Rebuild(ctx, e, nil)) // so that there are no snapshots to tell before from after
	_, want := index(t, e)
	must(t, e.Close())

	damage := &journal.Error{Op: "index", Kind: journal.KindCorrupt, Detail: "journaltest: damage"}
	other := errors.New("journaltest: too many open files")
	for _, fault := range []error{damage, other} {
		n := 1
		for met := true; met; n++ {
			s := &spoiled{at: n, err: fault}
			e := open(t)
			bad := e
			bad.Index = s.index(e)
			j, err := commitlog.Open(ctx, bad, commitlog.Options{})
			met = s.met
			at := fmt.Sprintf("operation %d fails with %q", n, fault)
			switch {
			case met && fault == other:
				if !errors.Is(err, other) || s.aside > 0 {
					t.Errorf("%s: opened with %v; set aside %d times", at, err, s.aside)
				}
				must(t, e.Close())
				continue
			case err != nil:
				t.Fatalf("%s: %v", at, err)
			case met && (s.aside != 1 || !errors.Is(j.IndexDamage(), damage)) || !met &&
				(s.aside > 0 || j.IndexDamage() != nil):
				t.Errorf("%s: set aside %d times, the damage is %v", at, s.aside, j.IndexDamage())
			}
			if logs := j.DamagedLogs(); len(logs) > 0 {
				t.Errorf("%s: the logs %v are called damaged", at, logs)
			}
			if _, got := index(t, e); !bytes.Equal(got, want) {
				t.Errorf("%s: the index is another one", at)
			}
			must(t, j.Close(ctx))
		}
		if n < 8 {
			t.Errorf("only %d operations were tried", n-1)
		}
	}

	// What is damaged however often it is made is no damage of the journal.
	s := &spoiled{err: damage}
	e = open(t)
	e.Index = alwaysIndex{s.index(e)}
	if _, err := commitlog.Open(ctx, e, commitlog.Options{}); err == nil || journal.KindOf(err) == journal.KindCorrupt {
		t.Errorf("an index that is always damaged: %v", err)
	}
	must(t, e.Close())
	verified(t, open, 0)
}

// alwaysIndex has nothing but damage.
type alwaysIndex struct{ *spoiledIndex }

func (x alwaysIndex) Get(context.Context, []byte) ([]byte, bool, error) { return nil, false, x.s.err }

package lsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// unhurried is a store that merges only what is due, and begins another table soon.
func unhurried() Options { return Options{quiet: time.Hour, table: 16 << 10} }

func numbered(from, n int) (pairs []journal.Pair) {
	for i := from; i < from+n; i++ {
		pairs = append(pairs, pair(fmt.Sprintf("k%09d", i), "v"))
	}
	return pairs
}

// addRuns writes n runs of so many entries each.
func addRuns(t *testing.T, s *Store, n, entries int) {
	t.Helper()
	ctx := context.Background()
	for i := range n {
		if err := errors.Join(s.Update(ctx, numbered(i*entries, entries)), s.Delete(ctx, [][]byte{[]byte("never")})); err != nil {
			t.Fatal(err)
		}
	}
}

func closeTest(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// held is an option that holds the worker when it makes the n-th table.
func held(o *Options, n int64) (at, goOn chan struct{}) {
	at, goOn = make(chan struct{}), make(chan struct{})
	var made atomic.Int64
	o.fault = func(op string) error {
		if op == "create" && made.Add(1) == n {
			close(at)
			<-goOn
		}
		return nil
	}
	return at, goOn
}

// Who waits for a compaction that has not begun, as another merge is under way, can give it up.
func TestACompactionThatWaitsIsCalledOff(t *testing.T) {
	o := unhurried()
	at, goOn := held(&o, tierRuns+2)
	s := openTest(t, t.TempDir(), o)
	addRuns(t, s, tierRuns, 30_000)
	<-at // within the merge that is due
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c := make(chan error)
	go func() { c <- s.Compact(ctx) }()
	if err := <-c; journal.KindOf(err) != journal.KindCanceled {
		t.Errorf("compacting: %v", err)
	}
	close(goOn)
	if err := s.Compact(context.Background()); err != nil {
		t.Error(err)
	}
	closeTest(t, s)
}

// A merge that leaves out all it meets, as it was deleted, heeds its context, too.
func TestAMergeOfDeletedKeysGivesWay(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	o := unhurried()
	o.Room = func(int64) error { cancel(); return nil } // when the merge begins
	s := openTest(t, t.TempDir(), o)
	const n = 5000
	if err := s.Update(ctx, numbered(0, n)); err != nil {
		t.Fatal(err)
	}
	var keys [][]byte
	for _, p := range numbered(0, n) {
		keys = append(keys, p.Key)
	}
	addRuns(t, s, 1, 1)
	if err := s.Delete(ctx, keys); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(ctx); journal.KindOf(err) != journal.KindCanceled {
		t.Errorf("compacting: %v", err)
	}
	if err := s.Compact(context.Background()); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Runs != 0 {
		t.Errorf("all is deleted, and there is %+v", st)
	}
	closeTest(t, s)
}

// A merge without room within another one does not end that one, whose end makes room.
func TestNoRoomForANestedMerge(t *testing.T) {
	o := unhurried()
	at, goOn := held(&o, tierRuns+2)
	var full atomic.Bool
	o.Room = func(int64) error {
		if full.Load() {
			return &journal.Error{Op: "space", Kind: journal.KindFull}
		}
		return nil
	}
	s := openTest(t, t.TempDir(), o)
	addRuns(t, s, tierRuns, 30_000)
	<-at
	full.Store(true)
	for i := range tierRuns {
		if err := s.Update(context.Background(), numbered(i*30_000, 30_000)); err != nil {
			t.Fatal(err)
		}
		s.writing.Lock()
		s.freeze()
		s.writing.Unlock()
	}
	close(goOn)
	if err := s.Settle(context.Background()); err != nil {
		t.Fatal(err)
	}
	v, err := s.acquire()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(v.runs); n != tierRuns+1 || v.runs[n-1].tier != 1 {
		t.Errorf("%d runs, the oldest of tier %d", n, v.runs[n-1].tier)
	}
	s.release(v)
	closeTest(t, s)
}

// A Clear ends a compaction: there is nothing left to do.
func TestClearDuringACompaction(t *testing.T) {
	o := unhurried()
	at, goOn := held(&o, 4)
	s := openTest(t, t.TempDir(), o)
	addRuns(t, s, 2, 50_000)
	c := make(chan error)
	go func() { c <- s.Compact(context.Background()) }()
	<-at
	cleared := make(chan error)
	go func() { cleared <- s.Clear(context.Background()) }()
	if err := <-cleared; err != nil {
		t.Error(err)
	}
	close(goOn)
	if err := <-c; err != nil {
		t.Errorf("compacting: %v", err)
	}
	if err := (model{}).compare(s); err != nil {
		t.Error(err)
	}
	closeTest(t, s)
}

// Whatever comes together with Close is done or refused.
func TestCloseAtAnyTime(t *testing.T) {
	ctx := context.Background()
	for range 50 {
		s := openTest(t, t.TempDir(), small())
		fillTest(t, s, 300, 0)
		var all sync.WaitGroup
		for _, do := range []func() error{
			func() error { return s.Compact(ctx) },
			func() error { return s.Delete(ctx, [][]byte{[]byte("g00/000000")}) },
			func() error { return s.Clear(ctx) },
			func() error { return s.Settle(ctx) },
			func() error { s.Stats(); return nil },
			s.Close,
		} {
			all.Go(func() {
				if err := do(); err != nil && journal.KindOf(err) != journal.KindClosed {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if st := s.Stats(); st.Runs != 0 || st.Bytes != 0 {
			t.Errorf("a closed store has %+v", st)
		}
	}
}

// Who makes a damaged store empty has a good one.
func TestClearMendsDamage(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := openTest(t, dir, unhurried())
	addRuns(t, s, 1, 30_000)
	tables, err := filepath.Glob(filepath.Join(dir, "*"+tableExt))
	if err != nil || len(tables) != 1 {
		t.Fatal(tables, err)
	}
	content, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	content[20] ^= 1
	if err := os.WriteFile(tables[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(ctx, []byte("k000000001")); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("get: %v", err)
	}
	if err := errors.Join(s.Clear(ctx), s.Update(ctx, numbered(0, 10)), s.Close()); err != nil {
		t.Error(err)
	}
	s = openTest(t, dir, unhurried())
	if ok, err := s.Has(ctx, []byte("k000000009")); !ok || err != nil {
		t.Errorf("has: %v, %v", ok, err)
	}
	closeTest(t, s)
}

// What was needed to write a table is not kept when it is written.
func TestMemoryOfTables(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // what was pooled, too
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	s := openTest(t, dir, Options{quiet: time.Hour})
	addRuns(t, s, 3, 100_000)
	if err := s.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	written := heap()
	closeTest(t, s)
	s = openTest(t, dir, Options{quiet: time.Hour})
	if ok, err := s.Has(ctx, []byte("k000000001")); !ok || err != nil {
		t.Errorf("has: %v, %v", ok, err)
	}
	if opened := heap(); written > opened+2<<20 {
		t.Errorf("%d KiB when it is written, %d when it is opened", written>>10, opened>>10)
	}
	closeTest(t, s)
}

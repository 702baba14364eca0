package pebbleindex

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// storeDir is where tests with a file system in memory have their store.
const storeDir = "/index"

// failedTest says whether an error is the one that tests inject, with the kind that it should have.
func failedTest(err error) bool {
	return journal.KindOf(err) == journal.KindInternal && errors.Is(err, syscall.EIO)
}

// history are the states that a store was in, one after the other.
type history struct {
	states []model
	safe   int // the first one that may be found after a crash
}

// do has f change the store and a model. If it fails nobody knows whether it has.
func (h *history) do(f func(m model) error) error {
	m := maps.Clone(h.states[len(h.states)-1])
	err := f(m)
	h.states = append(h.states, m)
	return err
}

// work changes a store as a journal does, until something fails.
func (h *history) work(s *Store, r random) (err error) {
	ctx := context.Background()
	for i := 0; i < 24 && err == nil; i++ {
		switch {
		case i%7 == 6:
			if err = h.do(func(m model) error { return s.Delete(ctx, r.keys(m)) }); err == nil {
				h.safe = len(h.states) - 1
			}
		case i == 15:
			err = s.Compact(ctx)
		case i == 20:
			if err = h.do(func(m model) error { clear(m); return s.Clear(ctx) }); err == nil {
				h.safe = len(h.states) - 1
			}
		default:
			err = h.do(func(m model) error { return s.Update(ctx, r.pairs(m)) })
		}
	}
	return err
}

// found says which state a store is in, of those that may be found.
func (h *history) found(s *Store) error {
	if slices.ContainsFunc(h.states[h.safe:], func(m model) bool { return m.compare(s) == nil }) {
		return nil
	}
	return fmt.Errorf("what is there was at no time since state %d of %d: %w",
		h.safe, len(h.states), h.states[h.safe].compare(s))
}

// The n-th operation that writes to files fails, and all that follow, for each n. The store says so, or can do without
// it. When it is opened again, it has the beginning of what it was given, with all that Delete has said to be safe.
func TestFailedWrites(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() { leftBehind = append(leftBehind, goleak.IgnoreCurrent()) })
	seed := prove.Seed(t)
	step := 1
	if testing.Short() {
		step = 5
	}
	for n := 1; ; n += step {
		disk := vfs.NewCrashableMem()
		var count atomic.Int64
		var failed atomic.Bool
		o := small()
		o.fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && count.Add(1) >= int64(n) {
				failed.Store(true)
				return &os.PathError{Op: fmt.Sprint(op.Kind), Path: op.Path, Err: syscall.EIO}
			}
			return nil
		}))
		h := history{states: []model{{}}}
		s, err := Open(storeDir, o)
		if err == nil {
			err = h.work(s, random{rand.New(rand.NewPCG(seed, 2))})
			err = errors.Join(err, s.Close())
		}
		switch {
		case err != nil && (!failed.Load() || !failedTest(err)):
			t.Fatalf("-prove.seed=%d, operation %d: %v", seed, n, err)
		case err == nil && !failed.Load():
			t.Logf("%d operations", n-1)
			return
		case err == nil:
			h.safe = len(h.states) - 1 // what failed was of no importance
		}
		clone := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: n % 101, RNG: rand.New(rand.NewPCG(seed, 6))})
		for what, fs := range map[string]vfs.FS{"as it is": disk, "after a loss of power": clone} {
			again := small()
			again.fs = fs
			s, err := Open(storeDir, again)
			if err == nil {
				err = errors.Join(h.found(s), s.Check(t.Context()), s.Close())
			}
			if err != nil {
				t.Fatalf("-prove.seed=%d, operation %d, %s: %v", seed, n, what, err)
			}
		}
	}
}

// The power is lost while a store is made, or while Pebble begins another manifest: the store opens, whichever names of
// files the disk has kept.
func TestPowerLostWhileOpening(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() { leftBehind = append(leftBehind, goleak.IgnoreCurrent()) })
	seed := prove.Seed(t)
	for n, more := int64(1), true; more; n++ {
		disk := vfs.NewCrashableMem()
		var count atomic.Int64
		var clones []vfs.FS
		o := small()
		o.fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && count.Add(1) == n {
				for i := range uint64(32) {
					clones = append(clones, disk.CrashClone(vfs.CrashCloneCfg{
						UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, i)),
					}))
				}
			}
			return nil
		}))
		for range 2 {
			s, err := Open(storeDir, o)
			if err == nil {
				err = s.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		more = len(clones) > 0
		for i, fs := range clones {
			again := small()
			again.fs = fs
			s, err := Open(storeDir, again)
			if err == nil {
				err = errors.Join(s.Check(t.Context()), s.Close())
			}
			if err != nil {
				t.Fatalf("-prove.seed=%d, operation %d, clone %d: %v", seed, n, i, err)
			}
		}
	}
}

// An operation that reads fails once: no read is wrong, and that the system cannot read is no damage.
func TestFailedReads(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() { leftBehind = append(leftBehind, goleak.IgnoreCurrent()) })
	seed := prove.Seed(t)
	ctx := t.Context()
	disk := vfs.NewMem()
	o := small()
	o.fs, o.idle = disk, true
	h := history{states: []model{{}}}
	s := openTest(t, storeDir, o)
	if err := h.work(s, random{rand.New(rand.NewPCG(seed, 4))}); err != nil {
		t.Fatal(err)
	}
	closeTest(t, s)
	want := h.states[len(h.states)-1]
	for n := int64(1); ; n++ {
		var count atomic.Int64
		o.fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsRead && count.Add(1) == n {
				return &os.PathError{Op: fmt.Sprint(op.Kind), Path: op.Path, Err: syscall.EIO}
			}
			return nil
		}))
		s, err := Open(storeDir, o)
		if err != nil {
			if !failedTest(err) {
				t.Fatalf("-prove.seed=%d, operation %d: %v", seed, n, err)
			}
			continue
		}
		for key, value := range want {
			got, ok, err := s.Get(ctx, []byte(key))
			if err != nil && !failedTest(err) || err == nil && (!ok || string(got) != value) {
				t.Fatalf("-prove.seed=%d, operation %d: %q is %.20q, %v, %v", seed, n, key, got, ok, err)
			}
		}
		if err := s.Check(ctx); err != nil && journal.KindOf(err) != journal.KindInternal {
			t.Fatalf("-prove.seed=%d, operation %d: %v", seed, n, err)
		}
		closeTest(t, s)
		if count.Load() < n {
			t.Logf("%d operations", n-1)
			return
		}
	}
}

// A loss of power at any time leaves the beginning of what the store was given.
func TestLossOfPower(t *testing.T) {
	t.Parallel()
	seed := prove.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 5))
	for range 20 {
		disk := vfs.NewCrashableMem()
		at, done := rng.Int64N(300), make(chan *vfs.MemFS, 1)
		cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rand.New(rand.NewPCG(rng.Uint64(), 6))}
		var count atomic.Int64
		var h history
		h.states = []model{{}}
		o := small()
		o.fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && count.Add(1) == at {
				done <- disk.CrashClone(cfg)
			}
			return nil
		}))
		s := openTest(t, storeDir, o)
		err := h.work(s, random{rand.New(rand.NewPCG(rng.Uint64(), 2))})
		if err = errors.Join(err, s.Close()); err != nil {
			t.Fatalf("-prove.seed=%d: %v", seed, err)
		}
		h.safe = 0 // what was safe when the power went is not known here; TestFailedWrites knows
		select {
		case o.fs = <-done:
		default:
			o.fs = disk.CrashClone(cfg)
			h.safe = len(h.states) - 1 // it was closed
		}
		s = openTest(t, storeDir, o)
		if err := errors.Join(h.found(s), s.Check(t.Context()), s.Close()); err != nil {
			t.Fatalf("-prove.seed=%d, after %d operations: %v", seed, at, err)
		}
	}
}

// The disk is full while a table is written: the store says so, and what is behind is refused; nothing waits for ever.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	disk := vfs.NewMem()
	var full atomic.Bool
	o := small()
	o.fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate) {
			return &os.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
		}
		return nil
	}))
	s := openTest(t, storeDir, o)
	fillTest(t, s, 1000, 0)
	if err := s.Delete(ctx, [][]byte{[]byte("never")}); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	var err error
	for g := 1; err == nil; g++ {
		err = s.Update(ctx, []journal.Pair{pair("a", strings.Repeat("x", 40<<10))})
	}
	if journal.KindOf(err) != journal.KindFull {
		t.Errorf("an update: %v", err)
	}
	if _, _, err := s.Get(ctx, []byte("g00/000000")); journal.KindOf(err) != journal.KindFull {
		t.Errorf("get: %v", err)
	}
	if err := s.Close(); journal.KindOf(err) != journal.KindFull {
		t.Errorf("close: %v", err)
	}
	full.Store(false)
	s = openTest(t, storeDir, o)
	if v, ok, err := s.Get(ctx, []byte("g00/000000")); !ok || err != nil || string(v) != "value 0 of generation 0" {
		t.Errorf("get: %q, %v, %v", v, ok, err)
	}
	closeTest(t, s)
}

// Pebble gives up: the process goes on, whoever calls has the error, the store is abandoned and counted, and the
// next Open finds that it is damaged.
func TestPebbleGivesUp(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, giveUp := range map[string]func(*Store){
		"on a goroutine of its own": func(s *Store) {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				s.now.Fatalf("%s", "it is over")
				t.Error("Fatalf returned")
			}()
			<-ended
		},
		"within a read": func(s *Store) {
			err := s.read(func(in *instance) error { in.Fatalf("%s", "it is over"); return nil })
			if err == nil || !strings.Contains(err.Error(), "it is over") {
				t.Errorf("the read: %v", err)
			}
		},
		"within an update": func(s *Store) {
			err := s.write(0, func(*pebble.Batch) error { return nil }, func(*pebble.DB) error {
				s.now.Fatalf("%s", "it is over")
				return nil
			})
			if err == nil || !strings.Contains(err.Error(), "it is over") {
				t.Errorf("the update: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := small()
			told := 0
			o.Abandoned = func() { told++ }
			s := openTest(t, dir, o)
			fillTest(t, s, 100, 0)
			before := s.Stats().Abandoned
			in := s.now
			giveUp(s)
			for what, err := range map[string]error{
				"update": s.Update(ctx, []journal.Pair{pair("a", "b")}),
				"scan":   s.Scan(ctx, nil, nil, func(_, _ []byte) error { return nil }),
				"close":  s.Close(),
			} {
				if journal.KindOf(err) != journal.KindInternal || !strings.Contains(err.Error(), "it is over") {
					t.Errorf("%s: %v", what, err)
				}
			}
			if n := abandoned.Load(); n != before+1 || told != 1 {
				t.Errorf("%d were abandoned, and %d before; the owner was told %d times", n, before, told)
			}
			if _, err := Open(dir, small()); journal.KindOf(err) != journal.KindCorrupt {
				t.Errorf("opening it again: %v", err)
			}
			if err := in.db.Close(); err != nil { // for this test it can be closed
				t.Error(err)
			}
			in.cache.Unref()
		})
	}
}

package commitlog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// spoiled has a storage whose log does not append, or that does not close.
type spoiled struct {
	*journaltest.Memory
	appends  int
	onAppend error
	onClose  error
}

func (s *spoiled) Storage() journal.Storage {
	spoiled := s.Memory.Storage()
	spoiled.Log = spoiledLog{spoiled.Log, s}
	spoiled.Close = func() error { return errors.Join(s.Memory.Close(), s.onClose) }
	return spoiled
}

type spoiledLog struct {
	journal.LogStore
	s *spoiled
}

func (l spoiledLog) Append(ctx context.Context, blocks []journal.Block) error {
	l.s.appends++
	return errors.Join(l.LogStore.Append(ctx, blocks), l.s.onAppend)
}

// Whatever error a write has, the journal is over: the outcome is unknown, although the
// write may have been whole, and the handle is never written to again.
func TestAFailedWriteIsTheEnd(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, errors.New("anything")} {
		t.Run(cause.Error(), func(t *testing.T) {
			ctx := context.Background()
			s := &spoiled{Memory: journaltest.NewMemory()}
			j, err := commitlog.Open(ctx, s.Storage(), commitlog.Options{})
			if err != nil {
				t.Fatal(err)
			}
			fill(t, j, 0, 1)
			s.onAppend = &os.PathError{Op: "write", Path: "log", Err: cause}
			if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", 1, "c1", 1)); journal.KindOf(
				err) != journal.KindFailed || !errors.Is(err, cause) {
				t.Errorf("the commit that was written: %v", err)
			}
			<-j.Failed()
			appends := s.appends
			s.onAppend = nil
			for _, log := range []journal.LogName{"bank", "orders"} {
				if _, err := journaltest.Append(j, journaltest.Commit(log, "other", 0, "c2", 1)); journal.KindOf(
					err) != journal.KindFailed {
					t.Errorf("a commit afterwards: %v", err)
				}
				if err := j.Accepts(log); journal.KindOf(err) != journal.KindFailed {
					t.Errorf("accepts: %v", err)
				}
			}
			read := 0
			if err := j.Read(ctx, "bank", 0, 0, func(*journal.Event) error { read++; return nil }); err != nil ||
				read != 1 {
				t.Errorf("%d events are read, %v", read, err)
			}
			if err := j.Close(ctx); err != nil {
				t.Error(err)
			}
			if s.appends != appends {
				t.Error("the handle was written to again")
			}
			// opening finds out that it was written
			j = journaltest.Open(t, s.CrashClone(0).Storage(), commitlog.Options{})
			if j.Head("bank") != 2 {
				t.Errorf("the head is %d", j.Head("bank"))
			}
		})
	}
}

// An error of closing is told, and is no reason to doubt what was acknowledged.
func TestAnErrorOfClosing(t *testing.T) {
	s := &spoiled{Memory: journaltest.NewMemory(), onClose: syscall.EIO}
	j, err := commitlog.Open(context.Background(), s.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, j, 0, 3)
	for range 2 {
		if err := j.Close(context.Background()); !errors.Is(err, syscall.EIO) {
			t.Errorf("close: %v", err)
		}
	}
	if j := journaltest.Open(t, s.CrashClone(3).Storage(), commitlog.Options{}); j.Head("bank") != 3 {
		t.Errorf("the head is %d", j.Head("bank"))
	}
}

// A disk that takes a second for a sync makes senders wait, and holds no more than it
// may: the bytes that are handed in stay within their bound.
func TestASlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, senders, each = 32 << 10, 16, 20
		m := journaltest.NewMemory()
		m.OnAppend(func([]journal.Block) { time.Sleep(time.Second) }) // of the bubble's clock
		j, err := commitlog.Open(context.Background(), m.Storage(),
			commitlog.Options{MaxPendingBytes: most, MaxGroupBytes: most / 2})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var held int64
		var slowest time.Duration
		var all sync.WaitGroup
		for s := range senders {
			all.Go(func() {
				for i := range each {
					began := time.Now()
					c := journaltest.Commit("bank", fmt.Sprint("k", s), journal.Version(i), fmt.Sprint("c", s, "-", i),
						1)
					c.Events[0].Data = make([]byte, 4<<10)
					if _, err := journaltest.Append(j, c); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					held = max(held, j.Stats().PendingBytes)
					slowest = max(slowest, time.Since(began))
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if held > most {
			t.Errorf("%d bytes were held, more than %d", held, most)
		}
		st := j.Stats()
		if st.Stalls == 0 || slowest < 2*time.Second {
			t.Errorf("nobody had to wait: %d stalls, the slowest took %v", st.Stalls, slowest)
		}
		if j.Head("bank") != senders*each {
			t.Errorf("%d events of %d", j.Head("bank"), senders*each)
		}
		t.Logf("%d commits in %d syncs of a second: at most %d bytes held, the slowest took %v", st.Commits, st.Syncs,
			held, slowest)
		if err := j.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

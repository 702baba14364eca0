package commitlog_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// gated returns a storage in memory that lets appends through one by one, each with the error that comes from gate.
func gated(gate chan error) journal.Storage {
	s := journaltest.NewMemory().Storage()
	s.Log = gatedLog{s.Log, gate}
	return s
}

type gatedLog struct {
	journal.LogStore
	gate chan error
}

func (l gatedLog) Append(ctx context.Context, blocks []journal.Block) error {
	if err := <-l.gate; err != nil {
		return err
	}
	return l.LogStore.Append(ctx, blocks)
}

// The index waits for commits that are on their way to the disk, so that it gets many
// entries at once, unless half of the room for commits is taken. It waits for nothing else:
// once none is on its way, written or failed, it has all there are.
func TestTheIndexWaitsForWhatIsOnItsWay(t *testing.T) {
	lost := errors.New("the disk is gone")
	for _, c := range []struct {
		name string
		room int
		ends []error // of three commits
		lag  []int   // of the index after each
	}{
		{"all written", 0, []error{nil, nil, nil}, []int{1, 2, 0}},
		{"the last one fails", 0, []error{nil, nil, lost}, []int{1, 2, 0}},
		{"little room", 4, []error{nil, nil, nil}, []int{0, 1, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan error)
				j, err := commitlog.Open(t.Context(), gated(gate),
					commitlog.Options{MaxGroupCommits: 1, MaxPendingCommits: c.room})
				if err != nil {
					t.Fatal(err)
				}
				told := make(chan error, len(c.ends))
				for i := range c.ends {
					hand(t, j, fmt.Sprint("key", i), 0, fmt.Sprint("c", i), 1, func(err error) { told <- err })
				}
				for i, end := range c.ends {
					gate <- end
					synctest.Wait()
					if err := <-told; (err != nil) != (end != nil) {
						t.Errorf("commit %d: %v", i, err)
					}
					if s := j.Stats(); s.IndexLag != c.lag[i] {
						t.Errorf("after %d commits the index lacks %d, want %d", i+1, s.IndexLag, c.lag[i])
					}
				}
				if s := j.Stats(); s.Pending != 0 {
					t.Errorf("%d are pending", s.Pending)
				}
				if err := j.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Who asks for the event catalogue waits for what is on its way then, and not until nothing is.
func TestEventTypesDoNotWaitForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan error)
		j, err := commitlog.Open(t.Context(), gated(gate), commitlog.Options{MaxGroupCommits: 1})
		if err != nil {
			t.Fatal(err)
		}
		const n = 5
		for i := range n {
			c := journaltest.Commit(journal.LogName(fmt.Sprint("log", i)), "key", 0, "c", 1)
			if err := j.Append(t.Context(), c, func(journal.Receipt, error) {}); err != nil {
				t.Fatal(err)
			}
		}
		gate <- nil
		synctest.Wait()
		asked := make(chan error)
		go func() {
			types, err := j.EventTypes(t.Context(), "log0")
			if err == nil && len(types) != 1 {
				err = fmt.Errorf("%v", types)
			}
			asked <- err
		}()
		synctest.Wait()
		gate <- nil // the index may wait for this one already
		synctest.Wait()
		select {
		case err := <-asked:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("it waits for others")
			defer func() { <-asked }()
		}
		for range n - 2 {
			gate <- nil
		}
		if err := j.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

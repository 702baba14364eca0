package badgerengine

import (
	"context"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// Durability rests on this option, whose default is off.
func TestTheLogIsSynced(t *testing.T) {
	e, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !e.log.Opts().SyncWrites {
		t.Error("the log's database does not sync its writes")
	}
	if e.index.Opts().SyncWrites {
		t.Error("the index's database syncs its writes, for nothing")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestASecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); journal.KindOf(err) != journal.KindLocked {
		t.Errorf("opening it twice: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// Commits of any size, and many of them in one group, fit into Badger's transactions.
func TestBigCommits(t *testing.T) {
	ctx := context.Background()
	e, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(ctx, e, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sizes := []int{300 << 10, 900 << 10, 1100 << 10, 5 << 20, 20 << 20}
	for range 20 {
		sizes = append(sizes, 500<<10, 60<<10, 1<<20)
	}
	done := make(chan error, len(sizes))
	for i, size := range sizes {
		c := journaltest.Commit("bank", fmt.Sprint("k", i), 0, fmt.Sprint("c", i), 1)
		c.Events[0].Data = make([]byte, size)
		if err := j.Append(ctx, c, func(_ journal.Receipt, err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range sizes {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	i := 0
	err = j.Read(ctx, "bank", 0, 0, func(e *journal.Event) error {
		if len(e.Data) != sizes[i] {
			t.Errorf("event %d has %d bytes, not %d", i, len(e.Data), sizes[i])
		}
		i++
		return nil
	})
	if err != nil || i != len(sizes) {
		t.Errorf("%d of %d events, %v", i, len(sizes), err)
	}
	if err := j.Close(ctx); err != nil {
		t.Error(err)
	}
}

package commitlog_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// held opens a journal on a disk that does the first append only when free is called,
// and says then what each append was.
func held(
	t *testing.T, o commitlog.Options,
) (j *commitlog.Journal, busy chan struct{}, free func(), appends func() [][]journal.Block) {
	t.Helper()
	m := journaltest.NewMemory()
	var seen [][]journal.Block
	busy = make(chan struct{})
	freed := make(chan struct{})
	m.OnAppend(func(blocks []journal.Block) {
		if seen = append(seen, blocks); len(seen) == 1 {
			close(busy)
			<-freed
		}
	})
	j = journaltest.Open(t, m.Storage(), o)
	return j, busy, func() { close(freed) }, func() [][]journal.Block {
		if err := j.Close(context.Background()); err != nil {
			t.Error(err)
		}
		return seen
	}
}

// handIn hands in a small commit of an entity of its own.
func handIn(t *testing.T, ctx context.Context, j *commitlog.Journal, log journal.LogName, i int) error {
	c := journaltest.Commit(log, fmt.Sprint("k", i), 0, fmt.Sprint("c", i), 1)
	return j.Append(ctx, c, func(_ journal.Receipt, err error) {
		if err != nil {
			t.Error(err)
		}
	})
}

// A log that has handed in much does not make others wait for more than the group
// that is on its way: each gets a batch into the next.
func TestAFloodDoesNotHoldUpOthers(t *testing.T) {
	ctx := context.Background()
	const flood, others = 5000, 3
	j, busy, free, appends := held(t, commitlog.Options{MaxBatchBytes: 1 << 10, MaxGroupBytes: 8 << 10,
		Codec: journal.CodecNone})
	for i := range flood {
		if err := handIn(t, ctx, j, "flood", i); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			<-busy
		}
	}
	for n := range others {
		for i := range 100 { // more than one turn takes
			if err := handIn(t, ctx, j, journal.LogName(fmt.Sprint("other", n)), i); err != nil {
				t.Fatal(err)
			}
		}
	}
	free()
	groups := appends()
	events := map[journal.LogName]int{}
	for i, blocks := range groups {
		bytes := 0
		logs := map[journal.LogName]int{}
		for _, b := range blocks {
			logs[b.Log]++
			bytes += len(b.Data)
			batch, err := format.ReadBatch(b.Data, nil)
			if err != nil {
				t.Fatal(err)
			}
			events[b.Log] += int(batch.Events)
		}
		if i == 1 && len(logs) != 1+others {
			t.Errorf("the group behind the one that was on its way has batches of %v", logs)
		}
		if bytes > 10<<10 {
			t.Errorf("group %d has %d bytes", i, bytes)
		}
	}
	for n := range others {
		if log := journal.LogName(fmt.Sprint("other", n)); events[log] != 100 {
			t.Errorf("%s has %d events", log, events[log])
		}
	}
	if events["flood"] != flood {
		t.Errorf("the flood has %d events of %d", events["flood"], flood)
	}
}

// A log that has used up all room waits, another one does not.
func TestAFloodDoesNotKeepOthersOut(t *testing.T) {
	const most = 256
	ctx := context.Background()
	j, busy, free, appends := held(t, commitlog.Options{MaxPendingCommits: most})
	for i := range most {
		if err := handIn(t, ctx, j, "flood", i); err != nil {
			t.Fatal(err)
		}
	}
	<-busy
	ended, end := context.WithCancel(ctx)
	end()
	if err := handIn(t, ended, j, "flood", most); journal.KindOf(err) != journal.KindCanceled {
		t.Errorf("the flood goes on: %v", err)
	}
	for i := range most / 64 {
		if err := handIn(t, ended, j, "other", i); err != nil {
			t.Errorf("commit %d of another log: %v", i, err)
		}
	}
	if err := handIn(t, ended, j, "other", most); journal.KindOf(err) != journal.KindCanceled {
		t.Errorf("the other log becomes a flood itself: %v", err)
	}
	if s := j.Stats(); s.Stalls != 2 || s.Pending != most+most/64 {
		t.Errorf("%+v", s)
	}
	free()
	appends()
}

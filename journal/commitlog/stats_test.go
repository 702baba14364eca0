package commitlog_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// What shares a sync is counted with it: ten commits that come while the disk is
// busy with one go into the next group.
func TestStats(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	j := journaltest.Open(t, m.Storage(), commitlog.Options{})
	busy, free := make(chan struct{}), make(chan struct{})
	appends := 0
	m.OnAppend(func([]journal.Block) {
		if appends++; appends == 1 {
			close(busy)
			<-free
		}
	})
	done := make(chan error, 11)
	give := func(i int) {
		c := journaltest.Commit("bank", fmt.Sprint("k", i), 0, fmt.Sprint("c", i), 2)
		if err := j.Append(ctx, c, func(_ journal.Receipt, err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	give(0)
	<-busy
	if s := j.Stats(); s.Commits != 0 || s.Pending != 1 || s.IndexLag != 0 {
		t.Errorf("while the disk is busy: %+v", s)
	}
	for i := range 10 {
		give(1 + i)
	}
	close(free)
	for range 11 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	s := j.Stats()
	if s.Commits != 11 || s.Events != 22 || s.Batches != 2 || s.Syncs != 2 || s.LargestGroup != 10 || s.Pending != 0 ||
		s.IndexLag != 0 {
		t.Errorf("%+v", s)
	}
	if g := s.GroupCommits; g.Count != 2 || g.Sum != 11 || g.Buckets[0] != 1 || g.Buckets[4] != 1 ||
		g.Quantile(0.5) != 1 || g.Quantile(1) != 16 {
		t.Errorf("groups: %+v", g)
	}
	if s.BatchBytes.Sum != s.Bytes || s.BatchBytes.Count != 2 || s.SyncMicros.Count != 2 || s.EventBytes == 0 ||
		s.IndexUpdates == 0 {
		t.Errorf("%+v", s)
	}
}

package commitlog_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// mixed is a journal of so many commits of one event, of several types, closed.
func mixed(t *testing.T, commits int) *journaltest.Memory {
	t.Helper()
	m := journaltest.NewMemory()
	j := journaltest.Open(t, m.Storage(), commitlog.Options{Clock: func() journal.UnixNano { return 1e18 }})
	for i := range commits {
		c := journaltest.Mixed(journaltest.Commit("bank", "k", journal.Version(i), fmt.Sprint("c", i), 1))
		if _, err := journaltest.Append(j, c); err != nil {
			t.Fatal(err)
		}
	}
	journaltest.Close(t, j)
	return m.CrashClone(0)
}

// An update of the index that was cut off may have the counts of events and not the
// checkpoint. They are not counted twice, and verification finds nothing wrong with it.
func TestEventTypesAheadOfTheCheckpoint(t *testing.T) {
	for behind := range 5 {
		m := mixed(t, 20)
		journaltest.TakeIndex(t, m, mixed(t, behind))
		journaltest.CopyIndex(t, m, mixed(t, 20), "y")
		journaltest.Proved(t, m.CrashClone(0))
		j := journaltest.Open(t, m.Storage(), commitlog.Options{})
		journaltest.CheckTypes(t, j, "bank")
		if err := j.IndexDamage(); err != nil {
			t.Error(err) // it was not completed, but rebuilt
		}
		journaltest.Close(t, j)
		journaltest.Proved(t, m.CrashClone(0))
	}
}

// An index of before a retention, whose batches are gone, is completed: as the copy of a
// file may bring it back.
func TestEventTypesOfAnOldIndex(t *testing.T) {
	for indexed := range 20 {
		old := mixed(t, indexed)
		m := mixed(t, 20)
		j := journaltest.Open(t, m.Storage(), commitlog.Options{})
		if _, err := j.Retain(t.Context(), "bank", journal.Retention{Before: 15, Force: true}); err != nil {
			t.Fatal(err)
		}
		journaltest.CheckTypes(t, j, "bank")
		journaltest.Close(t, j)
		m = m.CrashClone(0)
		journaltest.TakeIndex(t, m, old)
		j = journaltest.Open(t, m.Storage(), commitlog.Options{})
		journaltest.CheckTypes(t, j, "bank")
		journaltest.Close(t, j)
	}
}

// Who asks for the event catalogue gets what was on disk then, however far the index lags
// behind it.
func TestEventTypesWaitForTheIndex(t *testing.T) {
	m := journaltest.NewMemory()
	var lagging journaltest.Lagging
	j, err := commitlog.Open(t.Context(), lagging.Wrap(m.Storage()), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	lagging.Hold(true)
	if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", 0, "c", 1)); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if types, err := j.EventTypes(short, "bank"); journal.KindOf(err) != journal.KindCanceled {
		t.Errorf("while the index lags there are %v, %v", types, err)
	}
	got := make(chan []journal.EventType)
	go func() {
		types, err := j.EventTypes(context.Background(), "bank")
		if err != nil {
			t.Error(err)
		}
		got <- types
	}()
	lagging.Hold(false)
	if types := <-got; len(types) != 1 ||
		types[0] != (journal.EventType{Type: "Deposited", Count: 1, First: 1, Last: 1}) {
		t.Errorf("%v", types)
	}
	journaltest.Close(t, j)
}

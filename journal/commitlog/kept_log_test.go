package commitlog_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// keptOf are the kept events of the log.
func keptOf(t *testing.T, j *commitlog.Journal) (all []journal.Event) {
	t.Helper()
	err := j.Kept(t.Context(), "bank", func(e *journal.Event) error {
		own := *e
		own.Data, own.Metadata = append([]byte{}, e.Data...), append([]byte{}, e.Metadata...)
		all = append(all, own)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Who reads a whole log gets the kept events, too: those of the latest retention, each once, in order.
func TestKeptEventsOfALog(t *testing.T) {
	m, r := filled(t, 20)
	if got := keptOf(t, r.Journal); len(got) != 0 {
		t.Errorf("before any retention: %+v", got)
	}
	var want []journal.Event
	for i := range 15 {
		for _, e := range eventsOf(t, r.Journal, "k1", 0) {
			if e.Position == journal.Position(i+1) {
				want = append(want, e)
			}
		}
	}
	r.retain(t, 11, "k1", "k3")
	if got := keptOf(t, r.Journal); len(got) != 4 {
		t.Errorf("%+v", got)
	}
	r.retain(t, 16, "k1")
	if got := keptOf(t, r.Journal); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	enough := errors.New("enough")
	if err := r.Kept(t.Context(), "bank", func(*journal.Event) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
	if err := r.Kept(t.Context(), "other", func(*journal.Event) error { return enough }); err != nil {
		t.Errorf("a log that does not exist: %v", err)
	}
	// A retention that replaces them by snapshots is noticed.
	err := r.Kept(t.Context(), "bank", func(e *journal.Event) error {
		if e.Version == 1 {
			r.retain(t, 17)
		}
		return nil
	})
	if journal.KindOf(err) != journal.KindTrimmed {
		t.Errorf("%v", err)
	}
	journaltest.Close(t, r.Journal)
	rebuilds(t, m.CrashClone(0))
}

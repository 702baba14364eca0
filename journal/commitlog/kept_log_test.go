package commitlog_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
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

// If the event catalogue turns out to be damaged when a retention is already in force, it is not served and no other
// retention builds on it, until the journal is opened again, which corrects it.
func TestACatalogueThatCannotBeCorrectedIsNotServed(t *testing.T) {
	ctx := t.Context()
	m, r := filled(t, 20)
	types := r.types(t)
	i := slices.IndexFunc(types, func(x journal.EventType) bool { return x.First < 11 && x.Last >= 11 })
	name := types[i].Type
	damage := func(journal.Position) (func(), error) { // the last moment before the cut
		s := m.Storage()
		value, ok, err := s.Index.Get(ctx, format.TypeKey("bank", name))
		e, good := format.DecodeTypeEntry(value)
		if err != nil || !ok || !good {
			t.Fatal(ok, good, err)
		}
		e.Count, e.First = 1, e.Last
		return func() {}, s.Index.Update(ctx, []journal.Pair{{Key: format.TypeKey("bank", name),
			Value: format.EncodeTypeEntry(&e)}})
	}
	check := func(what string, err error) {
		t.Helper()
		if journal.KindOf(err) != journal.KindCorrupt ||
			!strings.Contains(journal.DetailOf(err), "before position 11") ||
			!strings.Contains(journal.DetailOf(err), "opening the journal again corrects it") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := r.Retain(ctx, "bank", journal.Retention{Before: 11, Schema: 1, Cover: r.cover(1), Hold: damage})
	check("the retention", err)
	_, err = r.EventTypes(ctx, "bank")
	check("the catalogue", err)
	_, err = r.Retain(ctx, "bank", journal.Retention{Before: 16, Schema: 1, Cover: r.cover(1)})
	check("the next retention", err)
	if r.First("bank") != 11 {
		t.Errorf("the log begins at %d", r.First("bank"))
	}
	journaltest.Close(t, r.Journal)
	m = m.CrashClone(0)
	r.Journal = journaltest.Open(t, m.Storage(), commitlog.Options{MaxGroupCommits: 1,
		Clock: journaltest.ClockAt(r.now)})
	journaltest.CheckTypes(t, r.Journal, "bank")
	r.retain(t, 16)
	journaltest.CheckTypes(t, r.Journal, "bank")
	journaltest.Close(t, r.Journal)
	rebuilds(t, m.CrashClone(0))
}

func (r *retainer) types(t *testing.T) []journal.EventType {
	t.Helper()
	types, err := r.EventTypes(t.Context(), "bank")
	if err != nil || len(types) == 0 {
		t.Fatal(types, err)
	}
	return types
}

// Damage of what a retention has kept stops the next one, unless it is forced, and the error says so.
func TestDamagedKeptEventsStopARetention(t *testing.T) {
	ctx := t.Context()
	m, r := filled(t, 20)
	r.retain(t, 11, "k1")
	m.Corrupt("bank", 10, 8*100) // the batches 11 to 20 are before the base batch
	_, err := r.Retain(ctx, "bank", journal.Retention{Before: 16, Schema: 1, Cover: r.coverBut("k1")})
	for _, want := range []string{"nothing was deleted", "restore a backup", "force the retention", "batch 21"} {
		if journal.KindOf(err) != journal.KindCorrupt || !strings.Contains(journal.DetailOf(err), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if err := r.Kept(ctx, "bank", func(*journal.Event) error { return nil }); journal.KindOf(
		err) != journal.KindCorrupt {
		t.Errorf("%v", err)
	}
	got, err := r.Retain(ctx, "bank", journal.Retention{Before: 16, Schema: 1, Cover: r.coverBut("k1"), Force: true})
	if err != nil || got.First != 16 || got.Uncovered != 1 {
		t.Errorf("forced: %+v, %v", got, err)
	}
	journaltest.Close(t, r.Journal)
}

package commitlog_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// coverBut puts a snapshot as a host would, but of some entities, which have none.
func (r *retainer) coverBut(without ...string) func(context.Context, string, journal.Version) error {
	put := r.cover(1)
	return func(ctx context.Context, key string, v journal.Version) error {
		if slices.Contains(without, key) {
			return errors.New("its state cannot be encoded")
		}
		return put(ctx, key, v)
	}
}

// later makes all answers forgotten.
func (r *retainer) later() { journaltest.Advance(r.now, journal.UnixNano(25*time.Hour)) }

// filled is a journal with so many events, of five entities in turn, whose answers are forgotten.
func filled(t *testing.T, events int) (*journaltest.Memory, *retainer) {
	t.Helper()
	m := journaltest.NewMemory()
	r := newRetainer(t, m.Storage())
	if err := r.add(events); err != nil {
		t.Fatal(err)
	}
	r.later()
	return m, r
}

// retain is a retention that has to go as far as it is asked to.
func (r *retainer) retain(t *testing.T, before journal.Position, without ...string) journal.Retained {
	t.Helper()
	got, err := r.Retain(t.Context(), "bank",
		journal.Retention{Before: before, Schema: 1, Cover: r.coverBut(without...)})
	if err != nil || got.First != before || got.Held > 0 || got.Uncovered > 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	return got
}

// eventsOf are those of an entity behind a version.
func eventsOf(t *testing.T, j *commitlog.Journal, key string, after journal.Version) (all []journal.Event) {
	t.Helper()
	at, err := j.Load(t.Context(), "bank", key, after, func(e *journal.Event) error {
		own := *e
		own.Data, own.Metadata = append([]byte{}, e.Data...), append([]byte{}, e.Metadata...)
		all = append(all, own)
		return nil
	})
	if err != nil || at != after+journal.Version(len(all)) {
		t.Errorf("%s: %d events behind version %d, up to %d, %v", key, len(all), after, at, err)
	}
	return all
}

// entries counts the entries of an index.
func entries(t *testing.T, s journal.Storage, kind string) (n int) {
	t.Helper()
	err := s.Index.Scan(t.Context(), []byte(kind), []byte(kind), func([]byte, []byte) error { n++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// rebuilds proves a journal as it is, and that its index is what the log makes of it.
func rebuilds(t *testing.T, m *journaltest.Memory) {
	t.Helper()
	journaltest.Proved(t, m.CrashClone(0))
	again := m.CrashClone(0)
	if err := commitlog.Rebuild(t.Context(), again.Storage(), nil); err != nil {
		t.Fatal(err)
	}
	if was, got := indexDump(t, m.CrashClone(0).Storage()), indexDump(t, again.Storage()); got != was {
		t.Fatalf("the index was\n%s\nrebuilt it is\n%s", was, got)
	}
	journaltest.Proved(t, again)
}

// An entity without a snapshot holds nobody up: its events are kept apart, all that they say with them, by one
// retention after the other, until there is a snapshot.
func TestEventsOfEntitiesWithoutSnapshotsAreKept(t *testing.T) {
	ctx := t.Context()
	m, r := filled(t, 20)
	before := map[string][]journal.Event{}
	for key := range r.versions {
		before[key] = eventsOf(t, r.Journal, key, 0)
	}
	check := func(keys ...string) {
		t.Helper()
		for _, key := range keys {
			if got := eventsOf(t, r.Journal, key, 0); !reflect.DeepEqual(got, before[key]) {
				t.Errorf("%s has\n%+v\nnot\n%+v", key, got, before[key])
			}
			for after, want := range before[key] {
				got := eventsOf(t, r.Journal, key, journal.Version(after))
				if len(got) == 0 || !reflect.DeepEqual(got[0], want) {
					t.Errorf("%s goes on behind version %d with %+v", key, after, got)
				}
				v, ok, err := r.KeptVersion(ctx, "bank", key, want.Position, want.Stamp)
				if is := want.Position < r.First("bank"); err != nil || ok != is || is && v != want.Version {
					t.Errorf("%s has version %d, %v at position %d, not %d, %v", key, v, ok, want.Position,
						want.Version, err)
				}
				if _, ok, err = r.KeptVersion(ctx, "bank", key, want.Position, journal.Stamp{7}); ok || err != nil {
					t.Errorf("an event of another history: %v, %v", ok, err)
				}
				if _, ok, err = r.KeptVersion(ctx, "bank", key, want.Position+1, want.Stamp); ok || err != nil {
					t.Errorf("a position of another entity: %v, %v", ok, err)
				}
			}
			for limit := range 4 {
				n := 0
				if err := r.Entity(ctx, "bank", key, 0, limit, func(e *journal.Event) error {
					if n++; e.Version != journal.Version(n) {
						t.Errorf("event %d of %s has version %d", n, key, e.Version)
					}
					return nil
				}); err != nil || limit > 0 && n != limit || limit == 0 && n != len(before[key]) {
					t.Errorf("%d events of %s, of %d, %v", n, key, limit, err)
				}
			}
			if first, err := r.EntityFirst(ctx, "bank", key); first != 1 || err != nil {
				t.Errorf("%s begins at %d, %v", key, first, err)
			}
		}
		journaltest.CheckTypes(t, r.Journal, "bank")
	}
	reopen := func(rebuild bool) {
		t.Helper()
		journaltest.Close(t, r.Journal)
		m = m.CrashClone(0)
		rebuilds(t, m)
		if rebuild {
			if err := commitlog.Rebuild(ctx, m.Storage(), nil); err != nil {
				t.Fatal(err)
			}
		}
		j := journaltest.Open(t, m.Storage(), commitlog.Options{MaxGroupCommits: 1, Clock: journaltest.ClockAt(r.now)})
		r.Journal = j
	}
	dry, err := r.Retain(ctx, "bank", journal.Retention{Before: 11, Schema: 1, Cover: r.coverBut("k1", "k3"),
		DryRun: true})
	if err != nil || dry.Kept != 2 || r.First("bank") != 1 {
		t.Errorf("%+v, %v", dry, err)
	}
	got := r.retain(t, 11, "k1", "k3")
	if got.Kept != 2 || !slices.Equal(got.KeptOf, []string{"k1", "k3"}) || got.KeptEvents != 4 || got.KeptBytes == 0 ||
		got.Events != 10 || got.Entities != 5 {
		t.Errorf("%+v", got)
	}
	if entries(t, m.Storage(), "k") != 4 {
		t.Errorf("the index has %d kept events", entries(t, m.Storage(), "k"))
	}
	check("k1", "k3")
	reopen(false)
	check("k1", "k3")
	if _, err := r.Load(ctx, "bank", "k0", 0, func(*journal.Event) error { return nil }); journal.KindOf(
		err) != journal.KindTrimmed {
		t.Errorf("one with a snapshot: %v", err)
	}
	if err := r.Read(ctx, "bank", 0, 1, func(e *journal.Event) error {
		if e.Position != 11 {
			t.Errorf("the log begins at %d", e.Position)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}

	// The next one carries them on, and adds to them; that of k3 has a snapshot now.
	got = r.retain(t, 16, "k1")
	if got.Kept != 1 || !slices.Equal(got.KeptOf, []string{"k1"}) || got.KeptEvents != 3 {
		t.Errorf("%+v", got)
	}
	check("k1")
	reopen(true)
	check("k1")
	if _, at, err := journaltest.Hydrate(r.Journal, "bank", "k3"); err != nil || at != 4 {
		t.Errorf("k3 is at %d, %v", at, err)
	}
	if _, err := r.Load(ctx, "bank", "k3", 0, func(*journal.Event) error { return nil }); journal.KindOf(
		err) != journal.KindTrimmed {
		t.Errorf("k3 has a snapshot: %v", err)
	}

	// What it goes on with comes behind what is kept, which another one carries on that takes nothing from it.
	r.n = 21
	if err := r.add(1); err != nil {
		t.Fatal(err)
	}
	before["k1"] = append(before["k1"], eventsOf(t, r.Journal, "k1", 4)...)
	if len(before["k1"]) != 5 {
		t.Fatalf("%d events", len(before["k1"]))
	}
	r.later()
	got = r.retain(t, 17, "k1")
	if got.Kept != 1 || got.KeptEvents != 3 {
		t.Errorf("%+v", got)
	}
	check("k1")
	reopen(false)
	check("k1")

	// Until there is a snapshot.
	got = r.retain(t, 18)
	if got.Kept != 0 || got.KeptOf != nil || got.KeptEvents != 0 {
		t.Errorf("%+v", got)
	}
	if _, at, err := journaltest.Hydrate(r.Journal, "bank", "k1"); err != nil || at != 5 {
		t.Errorf("k1 is at %d, %v", at, err)
	}
	r.later()
	r.retain(t, 22) // what it deletes holds the bases of those before
	if n := entries(t, m.Storage(), "k") + entries(t, m.Storage(), "z"); n != 0 {
		t.Errorf("%d entries of kept events are left", n)
	}
	reopen(false)
	for key, v := range r.versions {
		if _, at, err := journaltest.Hydrate(r.Journal, "bank", key); err != nil || at != v {
			t.Errorf("%s is at %d, %v", key, at, err)
		}
	}
}

// Whoever forces a retention has all events deleted that no snapshot covers, also those that were kept.
func TestAForcedRetentionKeepsNothing(t *testing.T) {
	m, r := filled(t, 20)
	r.retain(t, 6, "k1", "k2")
	got, err := r.Retain(t.Context(), "bank", journal.Retention{Before: 11, Schema: 1, Cover: r.coverBut("k1"),
		Force: true})
	if err != nil || got.Uncovered != 1 || got.Kept != 0 || got.First != 11 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, _, err := journaltest.Hydrate(r.Journal, "bank", "k1"); journal.KindOf(err) != journal.KindTrimmed {
		t.Errorf("k1: %v", err)
	}
	if _, at, err := journaltest.Hydrate(r.Journal, "bank", "k2"); err != nil || at != 4 {
		t.Errorf("k2 is at %d, %v", at, err)
	}
	journaltest.CheckTypes(t, r.Journal, "bank")
	// Its state is lost, and its later events are not: they are kept for who reads them.
	got = r.retain(t, 16, "k1")
	if got.Kept != 1 || got.KeptEvents != 1 {
		t.Errorf("%+v", got)
	}
	if first, err := r.EntityFirst(t.Context(), "bank", "k1"); first != 3 || err != nil ||
		len(eventsOf(t, r.Journal, "k1", 2)) != 2 {
		t.Errorf("k1 begins at %d, %v", first, err)
	}
	journaltest.Close(t, r.Journal)
	rebuilds(t, m.CrashClone(0))
}

// There is a bound to what is kept. Beyond it the log stays from the first event on that there is no room for; what is
// kept already stays kept.
func TestKeptEventsAreBounded(t *testing.T) {
	ctx := t.Context()
	m, r := filled(t, 20)
	try := func(before journal.Position, most int64, without ...string) (journal.Retained, error) {
		return r.Retain(ctx, "bank", journal.Retention{Before: before, Schema: 1, Cover: r.coverBut(without...),
			MaxKept: most})
	}
	whole, err := r.Retain(ctx, "bank", journal.Retention{Before: 16, Schema: 1, Cover: r.coverBut("k1", "k3"),
		DryRun: true})
	if err != nil || whole.Kept != 2 {
		t.Fatalf("%+v, %v", whole, err)
	}
	each := int64(whole.KeptBytes) / 2
	for _, c := range []struct {
		most  int64
		first journal.Position
		kept  int
	}{{2*each + 10, 16, 2}, {each + 10, 4, 1}, {each / 2, 2, 0}, {-1, 2, 0}} {
		got, err := r.Retain(ctx, "bank", journal.Retention{Before: 16, Schema: 1, Cover: r.coverBut("k1", "k3"),
			MaxKept: c.most, DryRun: true})
		if err != nil || got.First != c.first || got.Kept != c.kept || got.Held != 2-c.kept ||
			got.KeptBytes > uint64(max(c.most, 0)) || len(got.HeldBy) != got.Held {
			t.Errorf("with %d bytes: %+v, %v", c.most, got, err)
		}
	}
	got, err := try(16, each+10, "k1", "k3")
	if err != nil || got.First != 4 || got.Kept != 1 || fmt.Sprint(got.HeldBy) != "[k3]" || got.KeptEvents != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err = try(16, -1, "k1", "k3"); journal.KindOf(err) != journal.KindInvalid ||
		!strings.Contains(err.Error(), "no more than 0 bytes") || r.First("bank") != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	// What is kept counts: there would be room for one event of k3, but for that of k1.
	if got, err = try(6, each/2, "k1", "k3"); journal.KindOf(err) != journal.KindInvalid || r.First("bank") != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	// The bound has become lower: k1 keeps what it has, and loses no more.
	if got, err = try(16, -1, "k1"); err != nil || got.First != 7 || got.Kept != 1 || got.KeptEvents != 1 ||
		fmt.Sprint(got.HeldBy) != "[k1]" {
		t.Errorf("%+v, %v", got, err)
	}
	if len(eventsOf(t, r.Journal, "k1", 0)) != 4 {
		t.Error("k1 has lost events")
	}
	if got, err = try(16, 0, "k1"); err != nil || got.First != 16 || got.Kept != 1 || got.KeptEvents != 3 ||
		got.Held != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	journaltest.Close(t, r.Journal)
	rebuilds(t, m.CrashClone(0))
}

// Where the bound is used up by what is kept already, the second cut that is tried is right, however many entities have
// no snapshot.
func TestAFullBoundIsFoundAtOnce(t *testing.T) {
	const n = 20
	now := journal.UnixNano(1e18)
	j := journaltest.Open(t, journaltest.NewMemory().Storage(),
		commitlog.Options{MaxGroupCommits: 1, Clock: journaltest.ClockAt(&now)})
	defer journaltest.Close(t, j)
	asked := map[string]int{}
	retain := func(before journal.Position, most int64) journal.Retained {
		t.Helper()
		journaltest.Advance(&now, journal.UnixNano(25*time.Hour))
		clear(asked)
		got, err := j.Retain(t.Context(), "bank", journal.Retention{Before: before, MaxKept: most,
			Cover: func(_ context.Context, key string, _ journal.Version) error {
				asked[key]++
				return errors.New("its state cannot be encoded")
			}})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	add := func(i int, size int) {
		key, at := fmt.Sprintf("k%02d", i%n), journal.Version(i/n)
		c := journaltest.Commit("bank", key, at, fmt.Sprint("c", i), 1)
		c.Events[0].Data = make([]byte, size)
		if _, err := journaltest.Append(j, c); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		add(i, 10_000)
	}
	first := retain(n+1, 0)
	for i := range n {
		add(n+i, 10)
	}
	// There is room for the new events of a few.
	got := retain(2*n+1, int64(first.KeptBytes)+500)
	few := int(got.First) - n - 1
	if few == 0 || few > 10 || got.Kept != n || got.KeptEvents != uint64(n+few) || got.KeptBytes > first.KeptBytes+
		500 || got.Held != n-few || got.HeldBy[0] != fmt.Sprintf("k%02d", few) {
		t.Errorf("%+v", got)
	}
	for key, times := range asked {
		if times > 2 {
			t.Errorf("a snapshot of %s was asked for %d times", key, times)
		}
	}
}

// A retention may take an event out of the log whose place somebody has just looked up. Where its entity was then is
// not known any more: the floor would have the events up to there, which are kept, left out.
func TestTheVersionAtAPlaceThatIsGone(t *testing.T) {
	r := newRetainer(t, journaltest.NewMemory().Storage())
	defer journaltest.Close(t, r.Journal)
	if err := r.add(20); err != nil {
		t.Fatal(err)
	}
	r.later()
	r.retain(t, 11, "k1")
	for at := journal.Position(1); at <= 20; at++ {
		v, err := r.VersionAt(t.Context(), "bank", "k1", at)
		if at < 10 && journal.KindOf(err) != journal.KindTrimmed || at >= 10 &&
			(err != nil || v != journal.Version((at+3)/5)) {
			t.Errorf("k1 has version %d at position %d, %v", v, at, err)
		}
	}
}

// A snapshot that is behind saves the events before it, one that does not count saves none, and takes the place of
// none.
func TestEventsBehindASnapshotAreKept(t *testing.T) {
	ctx := t.Context()
	m, r := filled(t, 30)
	put := func(key string, v journal.Version, schema uint32) {
		s := journal.Snapshot{Version: v, Schema: schema, State: fmt.Appendf(nil, "%s at %d", key, v)}
		if !r.PutSnapshot(ctx, "bank", key, s) {
			t.Fatal("not kept")
		}
	}
	put("k1", 1, 1)
	put("k2", 2, 2)
	got := r.retain(t, 16, "k1", "k2")
	if got.Kept != 2 || got.KeptEvents != 2+3 {
		t.Errorf("%+v", got)
	}
	want := func(key string, kept journal.Version, snapshot journal.Version) {
		t.Helper()
		x, ok, err := r.Trimmed(ctx, "bank", key)
		if err != nil || !ok || x.Kept != kept || (x.Snapshot == nil) != (snapshot == 0) || snapshot > 0 &&
			x.Snapshot.Version != snapshot {
			t.Errorf("%s: %+v, %v, %v", key, x, x.Snapshot, err)
		}
		if _, at, err := journaltest.Hydrate(r.Journal, "bank", key); at != 6 || err != nil {
			t.Errorf("%s is at %d, %v", key, at, err)
		}
		if first, err := r.EntityFirst(ctx, "bank", key); err != nil || first != max(kept, 1) || x.Gone() != first-1 {
			t.Errorf("%s begins at %d, its events up to %d are gone, %v", key, first, x.Gone(), err)
		}
	}
	want("k1", 2, 1)
	want("k2", 1, 0)
	if _, err := r.Load(ctx, "bank", "k1", 0, func(*journal.Event) error { return nil }); journal.KindOf(
		err) != journal.KindTrimmed || !strings.Contains(err.Error(), "up to version 1") {
		t.Errorf("what the snapshot covers: %v", err)
	}
	// One that does not count leaves the old one, and all events after it.
	put("k1", 2, 2)
	put("k2", 1, 1)
	if s, ok, err := r.Snapshot(ctx, "bank", "k1"); !ok || err != nil || s.Version != 2 {
		t.Errorf("the latest snapshot of k1 is of version %d, %v", s.Version, err)
	}
	got = r.retain(t, 21, "k1", "k2")
	if got.KeptEvents != 3+3 {
		t.Errorf("%+v", got)
	}
	want("k1", 2, 1)
	want("k2", 2, 1)
	journaltest.Close(t, r.Journal)
	m = m.CrashClone(0)
	rebuilds(t, m)
	if err := commitlog.Rebuild(ctx, m.Storage(), nil); err != nil { // the log alone has all of it
		t.Fatal(err)
	}
	r.Journal = journaltest.Open(t, m.Storage(), commitlog.Options{Clock: journaltest.ClockAt(r.now)})
	want("k1", 2, 1)
	want("k2", 2, 1)
}

// What a retention has kept that did not come to its end means nothing, and a second one begins again.
func TestKeptEventsOfARetentionThatEnds(t *testing.T) {
	ctx := t.Context()
	m, r := filled(t, 20)
	deployed := errors.New("another module was deployed")
	_, err := r.Retain(ctx, "bank", journal.Retention{Before: 11, Schema: 1, Cover: r.coverBut("k1", "k3"),
		Hold: func(journal.Position) (func(), error) { return nil, deployed }})
	if !errors.Is(err, deployed) || r.First("bank") != 1 || entries(t, m.Storage(), "k") != 4 {
		t.Fatalf("%v, %d", err, entries(t, m.Storage(), "k"))
	}
	journaltest.CheckTypes(t, r.Journal, "bank")
	rebuilds(t, m.CrashClone(0))
	r.retain(t, 11, "k3")
	journaltest.CheckTypes(t, r.Journal, "bank")
	if len(eventsOf(t, r.Journal, "k3", 0)) != 4 {
		t.Error("k3 has lost events")
	}
	if _, err := r.Load(ctx, "bank", "k1", 0, func(*journal.Event) error { return nil }); journal.KindOf(
		err) != journal.KindTrimmed {
		t.Errorf("k1, which was kept by the one that did not come to its end: %v", err)
	}
	journaltest.Close(t, r.Journal)
	rebuilds(t, m.CrashClone(0))
}

// Damage of what is kept of an entity is found by verification, and is a fault of that entity alone.
func TestDamageOfKeptEvents(t *testing.T) {
	ctx := t.Context()
	m, r := filled(t, 20)
	r.retain(t, 11, "k1", "k3")
	journaltest.Close(t, r.Journal)
	m = m.CrashClone(0)
	of := func(kind, key string) string { return kind + "\x00\x04bank\x00\x02" + key }
	for name, c := range map[string]struct {
		damage func(m *journaltest.Memory)
		says   string
		load   journal.ErrorKind
	}{
		"an entry":                 {func(m *journaltest.Memory) { journaltest.Overwrite(t, m, of("k", "k1"), "what?") }, `the index has something else for version 1 of entity "k1"`, journal.KindCorrupt},
		"entries that are missing": {func(m *journaltest.Memory) { remove(t, m, of("k", "k1")) }, `the index lacks version 1 of entity "k1"`, journal.KindCorrupt},
		"entries too many": {func(m *journaltest.Memory) {
			key := []byte(of("k", "k1") + "\x00\x00\x00\x00\x00\x00\x00\x15\x00\x00\x00\x00\x00\x00\x00\x09")
			if err := m.Index().Update(ctx, []journal.Pair{{Key: key, Value: []byte("what?")}}); err != nil {
				t.Fatal(err)
			}
		}, "the index has 5 events that retentions kept, the log has 4", journal.KindInternal},
		"those of another": {func(m *journaltest.Memory) {
			swap(t, m, of("k", "k1"), of("k", "k3"))
		}, `the index has something else for version 1 of entity "k1"`, journal.KindInternal},
		"types": {func(m *journaltest.Memory) { journaltest.Overwrite(t, m, "z", "what?") },
			"other types of kept events", journal.KindInternal},
		"types that are missing": {func(m *journaltest.Memory) { remove(t, m, "z") },
			"entries of what retentions kept", journal.KindInternal},
		"what was kept of an entity": {func(m *journaltest.Memory) { journaltest.Overwrite(t, m, of("f", "k1"), "what?") }, `what a retention kept of entity "k1"`, journal.KindCorrupt},
	} {
		bad := m.CrashClone(0)
		c.damage(bad)
		report, err := verify.Run(ctx, bad.CrashClone(0).Storage(), verify.Options{})
		if err != nil || report.Found == 0 || !strings.Contains(fmt.Sprint(report.Problems), c.says) {
			t.Errorf("%s: verify finds %v, %v", name, report.Problems, err)
		}
		j := journaltest.Open(t, bad.Storage(), commitlog.Options{})
		if c.load != journal.KindInternal {
			if _, err := j.Load(ctx, "bank", "k1", 0, func(*journal.Event) error { return nil }); journal.KindOf(err) != c.load || !strings.Contains(err.Error(), `"k1"`) {
				t.Errorf("%s: k1 says %v", name, err)
			}
		}
		for _, key := range []string{"k0", "k2", "k4"} {
			if _, at, err := journaltest.Hydrate(j, "bank", key); err != nil || at != 4 {
				t.Errorf("%s: %s is at %d, %v", name, key, at, err)
			}
		}
		if strings.Contains(name, "entr") && len(eventsOf(t, j, "k3", 0)) != 4 {
			t.Errorf("%s: k3 has lost events", name)
		}
		journaltest.Close(t, j)
	}
	for name, c := range map[string]struct {
		block    int
		old, now string
	}{
		"another first event": {11, "\x03\x02\x02k1\x02\x01", "\x03\x02\x02k1\x02\x02"},
		"a cut before an event": {12, "\x04\x0b\x00\x00\x00\x00\x00\x00\x00\x0b",
			"\x04\x0b\x00\x00\x00\x00\x00\x00\x00\x09"},
	} {
		forged := m.CrashClone(0)
		forge(t, forged, c.block, []byte(c.old), []byte(c.now))
		if report, err := verify.Run(ctx, forged.Storage(), verify.Options{}); err != nil ||
			!strings.Contains(fmt.Sprint(report.Problems), "a retention keeps other events than it says") {
			t.Errorf("%s: verify finds %v, %v", name, report.Problems, err)
		}
	}
	for block := range 3 { // those of the kept events, the bases and the cut
		bad := m.CrashClone(0)
		bad.Corrupt("bank", 10+block, 8*90)
		if report, err := verify.Run(ctx, bad.Storage(), verify.Options{}); err != nil || report.Found == 0 {
			t.Errorf("block %d: verify finds %v, %v", block, report.Problems, err)
		}
	}
}

// forge changes a block, and its checksum with it.
func forge(t *testing.T, m *journaltest.Memory, block int, old, now []byte) {
	t.Helper()
	n := 0
	var was []byte
	if err := m.Log().Blocks(t.Context(), "bank", 0, func(b journal.Block) error {
		if n == block {
			was = bytes.Clone(b.Data)
		}
		n++
		return nil
	}); err != nil || !bytes.Contains(was, old) {
		t.Fatalf("%d blocks, %v; that one is %x", n, err, was)
	}
	changed := bytes.Replace(was, old, now, 1)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(changed[76:], crc32.Update(crc32.Checksum(changed[:76], table), table, changed[80:]))
	for bit := range 8 * len(was) {
		if (was[bit/8]^changed[bit/8])>>(bit%8)&1 == 1 {
			m.Corrupt("bank", block, bit)
		}
	}
}

// remove takes entries out of an index.
func remove(t *testing.T, m *journaltest.Memory, prefix string) {
	t.Helper()
	var keys [][]byte
	err := m.Index().Scan(t.Context(), []byte(prefix), []byte(prefix), func(k, _ []byte) error {
		keys = append(keys, bytes.Clone(k))
		return nil
	})
	if err == nil && len(keys) > 0 {
		err = m.Index().Delete(t.Context(), keys)
	}
	if err != nil || len(keys) == 0 {
		t.Fatalf("%d entries, %v", len(keys), err)
	}
}

// swap gives each of two entries the value of the other one.
func swap(t *testing.T, m *journaltest.Memory, a, b string) {
	t.Helper()
	var pairs []journal.Pair
	for _, prefix := range []string{a, b} {
		first := true
		err := m.Index().Scan(t.Context(), []byte(prefix), []byte(prefix), func(k, v []byte) error {
			if first {
				pairs = append(pairs, journal.Pair{Key: bytes.Clone(k), Value: bytes.Clone(v)})
			}
			first = false
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pairs[0].Value, pairs[1].Value = pairs[1].Value, pairs[0].Value
	if err := m.Index().Update(t.Context(), pairs); err != nil {
		t.Fatal(err)
	}
}

// Whoever reads an entity while retentions carry its events on, and take them away, gets all of them, or is told that
// there is a snapshot.
func TestReadingKeptEventsBesideRetentions(t *testing.T) {
	ctx := t.Context()
	m, r := filled(t, 200)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for last := false; !last; {
				select {
				case <-done:
					last = true
				default:
				}
				at := journal.Version(0)
				v, err := r.Load(ctx, "bank", "k1", 0, func(e *journal.Event) error {
					if at++; e.Version != at || e.Position != journal.Position(5*at-3) {
						t.Errorf("version %d at position %d follows on version %d", e.Version, e.Position, at-1)
					}
					return nil
				})
				if err != nil || v != 40 || at != 40 {
					t.Errorf("%d events up to version %d, %v", at, v, err)
					return
				}
				event := journal.Position(5*7 - 3)
				if _, _, err := r.KeptVersion(ctx, "bank", "k1", event, journal.Stamp{}); err != nil {
					t.Error(err)
				}
				if _, at, err := journaltest.Hydrate(r.Journal, "bank", "k2"); err != nil || at != 40 {
					t.Errorf("k2 is at %d, %v", at, err)
				}
			}
		})
	}
	for before := journal.Position(10); before <= 200; before += 10 {
		without := []string{"k1"}
		if before%20 == 0 {
			without = append(without, "k3")
		}
		if got, err := r.Retain(ctx, "bank", journal.Retention{Before: before, Schema: 1,
			Cover: r.coverBut(without...)}); err != nil || got.First != before {
			t.Errorf("%+v, %v", got, err)
		}
	}
	close(done)
	readers.Wait()
	journaltest.Close(t, r.Journal)
	rebuilds(t, m.CrashClone(0))
}

// keptReadsIndex counts the entries of kept events that are read.
type keptReadsIndex struct {
	journal.IndexStore
	read *int
}

func (x keptReadsIndex) Scan(ctx context.Context, prefix, from []byte, yield func(k, v []byte) error) error {
	return x.IndexStore.Scan(ctx, prefix, from, func(k, v []byte) error {
		if prefix[0] == 'k' {
			*x.read++
		}
		return yield(k, v)
	})
}

// Each retention writes what it keeps again. Who reads an entity passes over none of the copies, wherever in
// the events of several batches it begins.
func TestCopiesOfKeptEventsCostReadersNothing(t *testing.T) {
	const events, batches = 40, 8
	m := journaltest.NewMemory()
	read := 0
	s := m.Storage()
	s.Index = keptReadsIndex{s.Index, &read}
	r := newRetainer(t, s)
	for at := range journal.Version(events) {
		c := journaltest.Commit("bank", "large", at, fmt.Sprint("large", at), 1)
		c.Events[0].Data = fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", batches*256<<10/events))
		if _, err := journaltest.Append(r.Journal, c); err != nil {
			t.Fatal(err)
		}
	}
	const retentions = 6
	if err := r.add(retentions); err != nil {
		t.Fatal(err)
	}
	r.later()
	for n := range journal.Position(retentions) {
		if got := r.retain(t, events+1+n, "large"); got.KeptEvents != events {
			t.Fatalf("%+v", got)
		}
	}
	if n := entries(t, m.Storage(), "k"); n != events*retentions {
		t.Fatalf("the index has %d kept events", n)
	}
	for after := range journal.Version(events) {
		read = 0
		if got := eventsOf(t, r.Journal, "large", after); len(got) != int(events-after) {
			t.Errorf("%d events behind version %d", len(got), after)
		}
		if most := int(events-after) + batches + 1; read > most {
			t.Errorf("%d entries are read for %d events", read, events-after)
		}
	}
	journaltest.Close(t, r.Journal)
	rebuilds(t, m.CrashClone(0))
}

// interrupted has something called before the first scan of entries of a kind.
type interrupted struct {
	kind byte
	then func()
}

// memory returns an empty storage whose scans are interrupted.
func (e *interrupted) memory() journal.Storage {
	s := journaltest.NewMemory().Storage()
	s.Index = interruptedIndex{s.Index, e}
	return s
}

type interruptedIndex struct {
	journal.IndexStore
	e *interrupted
}

func (x interruptedIndex) Scan(ctx context.Context, prefix, from []byte, yield func(k, v []byte) error) error {
	if then := x.e.then; then != nil && prefix[0] == x.e.kind {
		x.e.then = nil
		then()
	}
	return x.IndexStore.Scan(ctx, prefix, from, yield)
}

// A retention may take away, or carry on, what somebody is about to read, after this or that was looked at: nobody gets
// less than there is without a word.
func TestARetentionWhileAnEntityIsRead(t *testing.T) {
	ctx := t.Context()
	for _, kind := range []byte("fke") { // what was kept of the entity, kept events, those in the log
		for _, without := range []string{"k1", "nobody"} {
			for _, key := range []string{"k0", "k1"} {
				e := &interrupted{kind: kind}
				r := newRetainer(t, e.memory())
				if err := r.add(20); err != nil {
					t.Fatal(err)
				}
				r.later()
				r.retain(t, 11, "k1")
				e.then = func() {
					r.later() // so that what the first one has kept goes, too
					r.retain(t, 21, without)
				}
				after := journal.Version(0)
				if key == "k0" {
					after = 2
				}
				at := after
				v, err := r.Load(ctx, "bank", key, after, func(e *journal.Event) error {
					if at++; e.Version != at {
						t.Errorf("version %d follows on %d", e.Version, at-1)
					}
					return nil
				})
				all := err == nil && v == 4 && at == 4
				if there := key == without; there && !all || !there && !all &&
					journal.KindOf(err) != journal.KindTrimmed {
					t.Errorf("%c, %s without a snapshot: %s is read to version %d, %d, %v", kind, without, key, at, v,
						err)
				}
				if e.then != nil && (kind != 'k' || key == "k1") {
					t.Errorf("%c, %s: there was no retention", kind, key)
				}
				journaltest.Close(t, r.Journal)
			}
		}
	}
}

// What a retention carries on of those before is in the catalogue, also if the retention comes while somebody reads
// that.
func TestARetentionWhileTheCatalogueIsRead(t *testing.T) {
	for _, kind := range []byte("yz") {
		e := &interrupted{kind: kind}
		r := newRetainer(t, e.memory())
		if err := r.add(20); err != nil {
			t.Fatal(err)
		}
		r.later()
		r.retain(t, 11, "k1")
		r.later()
		e.then = func() { r.retain(t, 21, "k1") }
		types, err := r.EventTypes(t.Context(), "bank")
		again, wrong := r.EventTypes(t.Context(), "bank")
		if err != nil || wrong != nil || e.then != nil || len(types) == 0 || !slices.Equal(types, again) {
			t.Errorf("%c: %v, %v; later %v, %v", kind, types, err, again, wrong)
		}
		journaltest.CheckTypes(t, r.Journal, "bank")
		journaltest.Close(t, r.Journal)
	}
}

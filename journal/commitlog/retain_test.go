package commitlog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// retainer is a journal whose entities k0 … k4 get an event each in turn, in a batch
// each.
type retainer struct {
	*commitlog.Journal
	versions map[string]journal.Version
	n        int
	now      *journal.UnixNano
}

func newRetainer(t *testing.T, s journal.Storage) *retainer {
	t.Helper()
	now := journal.UnixNano(1e18)
	r := &retainer{versions: map[string]journal.Version{}, now: &now}
	var err error
	r.Journal, err = commitlog.Open(t.Context(), s,
		commitlog.Options{MaxGroupCommits: 1, Clock: journaltest.ClockAt(&now)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *retainer) add(n int) error {
	for range n {
		key := fmt.Sprint("k", r.n%5)
		c := journaltest.Commit("bank", key, r.versions[key], fmt.Sprint("c", r.n), 1)
		receipt, err := journaltest.Append(r.Journal, journaltest.Mixed(c))
		if err != nil {
			return err
		}
		r.versions[key] = receipt.Version()
		r.n++
		journaltest.Advance(r.now, journal.UnixNano(time.Minute))
	}
	return nil
}

// cover puts a snapshot as a host would.
func (r *retainer) cover(schema uint32) func(context.Context, string, journal.Version) error {
	return func(ctx context.Context, key string, _ journal.Version) error {
		v := r.versions[key]
		r.PutSnapshot(ctx, "bank", key,
			journal.Snapshot{Version: v, Schema: schema, State: fmt.Appendf(nil, "%s at %d", key, v)})
		return nil
	}
}

// What no snapshot covers, and what answers to command ids still need, stays; with
// force it goes, and who wants it is told.
func TestRetentionKeepsWhatIsNeeded(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	r := newRetainer(t, m.Storage())
	if err := r.add(20); err != nil {
		t.Fatal(err)
	}
	fails := func(o journal.Retention, says string) {
		t.Helper()
		o.MaxKept = -1
		_, err := r.Retain(ctx, "bank", o)
		if journal.KindOf(err) != journal.KindInvalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v", o, err)
		}
		if r.First("bank") != 1 {
			t.Fatal("something was deleted")
		}
	}
	fails(journal.Retention{}, "neither a position nor a time")
	if _, err := r.Retain(ctx, "none", journal.Retention{Before: 5}); journal.KindOf(err) != journal.KindInvalid {
		t.Errorf("a log that is not there: %v", err)
	}
	// All answers are promised yet.
	got, err := r.Retain(ctx, "bank", journal.Retention{Before: 11, Cover: r.cover(1), Schema: 1})
	if err != nil || !got.Promised || got.Batches != 0 || got.First != 1 {
		t.Errorf("within the answer window: %+v, %v", got, err)
	}
	journaltest.Advance(r.now, journal.UnixNano(25*time.Hour))
	fails(journal.Retention{Before: 11}, "of 5 entities that would lose events, 5 have no snapshot")
	if err := r.cover(1)(ctx, "k3", 0); err != nil {
		t.Fatal(err)
	}
	fails(journal.Retention{Before: 11, Schema: 1}, "4 have no snapshot")
	fails(journal.Retention{Before: 11, Schema: 2}, "5 have no snapshot") // of another schema does not count
	fails(journal.Retention{Before: 11, Schema: 1, Cover: r.cover(2)}, "4 have no snapshot")
	archived := errors.New("the archive is full")
	if _, err := r.Retain(ctx, "bank", journal.Retention{Before: 11, Schema: 1, Cover: r.cover(1),
		Archive: func(context.Context, journal.BatchRange) error { return archived }}); !errors.Is(err, archived) ||
		r.First("bank") != 1 {
		t.Errorf("an archive that fails: %v", err)
	}
	stages := map[string]bool{}
	got, err = r.Retain(ctx, "bank", journal.Retention{Before: 11, Schema: 1, Cover: r.cover(1),
		Progress: func(stage string, _, _ uint64) { stages[stage] = true }})
	if err != nil || got.First != 11 || got.Batches != 10 || got.Events != 10 || got.Entities != 5 ||
		got.Uncovered != 0 || got.Promised || !stages["deleting"] {
		t.Errorf("%+v, %v, %v", got, err, stages)
	}
	for key, v := range r.versions {
		if _, at, err := journaltest.Hydrate(r.Journal, "bank", key); at != v || err != nil {
			t.Errorf("%s hydrates to %d, want %d, %v", key, at, v, err)
		}
		if _, err := r.Load(ctx, "bank", key, 1, func(*journal.Event) error { return nil }); journal.KindOf(
			err) != journal.KindTrimmed {
			t.Errorf("loading %s from its start: %v", key, err)
		}
		seen := 0
		if err := r.Entity(ctx, "bank", key, 0, 0, func(e *journal.Event) error { seen++; return nil }); err != nil ||
			seen != 2 {
			t.Errorf("%s has %d events left, %v", key, seen, err)
		}
	}
	if found, err := r.Answer(ctx, "bank", "c3", nil); found || err != nil {
		t.Errorf("an answer that was deleted: %v, %v", found, err)
	}
	if found, err := r.Answer(ctx, "bank", "c15", func(*journal.Committed, journal.Receipt, error) {}); found ||
		err != nil {
		t.Errorf("an answer outside the window: %v, %v", found, err)
	}
	// By age, and with force: k9 has no snapshot, and its state is lost.
	if _, err := journaltest.Append(r.Journal, journaltest.Commit("bank", "k9", 0, "c-k9", 2)); err != nil {
		t.Fatal(err)
	}
	journaltest.Advance(r.now, journal.UnixNano(time.Hour))
	got, err = r.Retain(ctx, "bank", journal.Retention{OlderThan: *r.now, Schema: 1, Force: true})
	if err != nil || got.First != 23 || got.Entities != 6 || got.Uncovered != 1 {
		t.Errorf("forced: %+v, %v", got, err)
	}
	if _, _, err := journaltest.Hydrate(r.Journal, "bank", "k9"); journal.KindOf(err) != journal.KindTrimmed ||
		!strings.Contains(err.Error(), "up to version 2") {
		t.Errorf("an entity whose state is lost: %v", err)
	}
	if _, err := journaltest.Append(r.Journal, journaltest.Commit("bank", "k9", 2, "c-k9-2", 1)); err != nil {
		t.Errorf("its version is still known: %v", err)
	}
	// A snapshot that is gone from the index is still in the log.
	journaltest.Close(t, r.Journal)
	m = m.CrashClone(0)
	if err := commitlog.Rebuild(ctx, m.Storage(), nil); err != nil {
		t.Fatal(err)
	}
	j := journaltest.Open(t, m.Storage(), commitlog.Options{})
	for key, v := range r.versions {
		if _, at, err := journaltest.Hydrate(j, "bank", key); at != v || err != nil {
			t.Errorf("after rebuilding, %s hydrates to %d, want %d, %v", key, at, v, err)
		}
	}
	journaltest.Close(t, j)
	if report := journaltest.Proved(t, m.CrashClone(0)); report.Logs["bank"].Deleted == 0 ||
		report.Logs["bank"].Entities != 6 {
		t.Errorf("%+v", report)
	}
}

// For n = 1, 2, 3 … the n-th operation fails, and all after it, in the middle of two
// retentions. After each the machine loses power, and with it some updates of the
// index: whatever was interrupted, every entity hydrates to its version, nothing but
// what should go is gone, and a rebuilt index is byte-equal.
func TestEachOperationOfRetentionFails(t *testing.T) {
	t.Run("with snapshots", func(t *testing.T) { eachOperationFails(t) })
	t.Run("without some", func(t *testing.T) { eachOperationFails(t, "k1", "k3") })
}

// eachOperationFails does that while some entities have no snapshot.
func eachOperationFails(t *testing.T, without ...string) {
	ctx := context.Background()
	for n := 1; ; n++ {
		m := journaltest.NewMemory()
		r := newRetainer(t, m.Storage())
		if err := r.add(20); err != nil {
			t.Fatal(err)
		}
		journaltest.Advance(r.now, journal.UnixNano(25*time.Hour))
		m.FailAt(n)
		before := []journal.Position{1}
		failed := false
		for _, position := range []journal.Position{8, 15} {
			_, err := r.Retain(ctx, "bank",
				journal.Retention{Before: position, Schema: 1, Cover: r.coverBut(without...)})
			before = append(before, position)
			if err == nil {
				err = r.add(2)
			}
			if failed = err != nil; failed {
				break
			}
		}
		_ = r.Close(ctx) // which may fail too
		for lost := range 8 {
			crashed := m.CrashClone(lost)
			j, err := commitlog.Open(ctx, crashed.Storage(), commitlog.Options{})
			if err != nil {
				t.Fatalf("n=%d, %d lost: %v", n, lost, err)
			}
			first := j.First("bank")
			if last := len(before) - 1; first != before[last] && (first != before[last-1] || !failed) {
				t.Errorf("n=%d, %d lost: the log begins at %d after retentions before %v", n, lost, first, before)
			}
			for key, v := range r.versions {
				if _, at, err := journaltest.Hydrate(j, "bank", key); err != nil || at != v && (at != v+1 || !failed) {
					t.Errorf("n=%d, %d lost: %s hydrates to %d, want %d: %v", n, lost, key, at, v, err)
				}
			}
			next := first
			err = j.Read(ctx, "bank", 0, 0, func(e *journal.Event) error {
				if e.Position != next {
					t.Errorf("n=%d, %d lost: position %d, want %d", n, lost, e.Position, next)
				}
				next++
				return nil
			})
			if err != nil || next != j.Head("bank")+1 {
				t.Errorf("n=%d, %d lost: the log is read to %d of %d, %v", n, lost, next-1, j.Head("bank"), err)
			}
			journaltest.CheckTypes(t, j, "bank")
			journaltest.Close(t, j)
			journaltest.Proved(t, crashed.CrashClone(0))
			was := indexDump(t, crashed.CrashClone(0).Storage())
			again := crashed.CrashClone(0)
			if err := commitlog.Rebuild(ctx, again.Storage(), nil); err != nil {
				t.Fatal(err)
			}
			if got := indexDump(t, again.Storage()); got != was {
				t.Fatalf("n=%d, %d lost: the index was\n%s\nrebuilt it is\n%s", n, lost, was, got)
			}
			// What the machine found may be verified as it is, too.
			journaltest.Proved(t, m.CrashClone(lost))
		}
		if !failed {
			t.Logf("%d operations, each failed once", n-1)
			return
		}
	}
}

// What a retention has written that did not come to its end does not count for the next one either, which takes no
// event away and so writes nothing but its cut.
func TestRetentionOfNoEvents(t *testing.T) {
	ctx := t.Context()
	deployed := errors.New("another module was deployed")
	for _, without := range []string{"", "k1"} {
		for n := 0; n < 60; n++ { // 0: it ends by itself, with events kept
			m := journaltest.NewMemory()
			r := newRetainer(t, m.Storage())
			if _, err := journaltest.Append(r.Journal, journaltest.Commit("bank", "k0", 0, "nothing", 0)); err != nil {
				t.Fatal(err)
			}
			if err := r.add(20); err != nil {
				t.Fatal(err)
			}
			r.later()
			o := journal.Retention{Before: 11, Schema: 1, Cover: r.coverBut(without)}
			if n == 0 {
				o.Hold = func(journal.Position) (func(), error) { return nil, deployed }
			}
			m.FailAt(n)
			_, err := r.Retain(ctx, "bank", o)
			m.FailAt(0)
			journaltest.Close(t, r.Journal)
			m = m.CrashClone(0)
			r.Journal = journaltest.Open(t, m.Storage(), commitlog.Options{Clock: journaltest.ClockAt(r.now)})
			if err == nil || r.First("bank") > 1 {
				journaltest.Close(t, r.Journal)
				break
			}
			if got, err := r.Retain(ctx, "bank", journal.Retention{Before: 2, Through: 1, Schema: 1}); err != nil ||
				got.Batches != 1 || got.Entities != 0 {
				t.Errorf("%d: %+v, %v", n, got, err)
			}
			for key, v := range r.versions {
				if got := eventsOf(t, r.Journal, key, 0); len(got) != int(v) {
					t.Errorf("%d: %s has %d events", n, key, len(got))
				}
			}
			journaltest.CheckTypes(t, r.Journal, "bank")
			journaltest.Close(t, r.Journal)
			rebuilds(t, m.CrashClone(0))
			if t.Failed() {
				t.Fatalf("the operation number %d of the first one failed, %q has no snapshot", n, without)
			}
		}
	}
}

// A retention may end between what an earlier one kept and its cut.
func TestRetentionCutsAnotherInTwo(t *testing.T) {
	ctx := context.Background()
	for _, without := range []string{"", "k1"} {
		for _, through := range []uint64{11, 12, 13} {
			m := journaltest.NewMemory()
			r := newRetainer(t, m.Storage())
			if err := r.add(10); err != nil {
				t.Fatal(err)
			}
			r.later()
			// Batch 11 has the bases, or kept events and 12 the bases, and the one behind it the cut.
			if _, err := r.Retain(ctx, "bank",
				journal.Retention{Before: 6, Schema: 1, Cover: r.coverBut(without)}); err != nil {
				t.Fatal(err)
			}
			r.later()
			if through == 13 && without == "" {
				through = 12 // there are no more
			}
			got, err := r.Retain(ctx, "bank", journal.Retention{Before: 11, Through: through, Schema: 1,
				Cover: r.coverBut(without)})
			if err != nil || got.Through != through || got.Held > 0 {
				t.Fatalf("%+v, %v", got, err)
			}
			if err := r.add(3); err != nil {
				t.Fatal(err)
			}
			journaltest.Close(t, r.Journal)
			m = m.CrashClone(0)
			rebuilds(t, m)
			if err := commitlog.Rebuild(ctx, m.Storage(), nil); err != nil {
				t.Fatal(err)
			}
			journaltest.Proved(t, m.CrashClone(0))
			j := journaltest.Open(t, m.Storage(), commitlog.Options{})
			for key, v := range r.versions {
				if _, at, err := journaltest.Hydrate(j, "bank", key); at != v || err != nil {
					t.Errorf("through %d, %q: %s hydrates to %d, want %d, %v", through, without, key, at, v, err)
				}
			}
			if without != "" && len(eventsOf(t, j, without, 0)) != int(r.versions[without]) {
				t.Errorf("through %d: %s has lost events", through, without)
			}
		}
	}
}

// A log whose beginning is missing without a retention is refused, and so is one that
// misses more than that deleted.
func TestALostBeginningIsFound(t *testing.T) {
	ctx := context.Background()
	for _, retain := range []journal.Position{0, 6} {
		m := journaltest.NewMemory()
		r := newRetainer(t, m.Storage())
		if err := r.add(20); err != nil {
			t.Fatal(err)
		}
		if retain > 0 {
			if _, err := r.Retain(ctx, "bank", journal.Retention{Before: retain, Schema: 1, Cover: r.cover(1),
				Force: true}); err != nil {
				t.Fatal(err)
			}
		}
		journaltest.Close(t, r.Journal)
		whole := m.CrashClone(0)
		m.Lose("bank", 0)
		for _, lost := range []*journaltest.Memory{m.CrashClone(0), m.CrashClone(1000)} {
			if report, err := verify.Run(ctx, lost.CrashClone(0).Storage(), verify.Options{}); err != nil ||
				report.Found == 0 {
				t.Errorf("retention before %d: verify finds %v, %v", retain, report.Problems, err)
			}
			err := commitlog.Rebuild(ctx, lost.Storage(), nil)
			if journal.KindOf(err) != journal.KindCorrupt || !strings.Contains(err.Error(), "batches are missing") {
				t.Errorf("retention before %d: rebuild says %v", retain, err)
			}
		}
		journaltest.Proved(t, whole)
	}
}

// Every bit of a base batch is under its checksum, and what it says of the entities
// is held to the log.
func TestRetentionIsUnderVerification(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	r := newRetainer(t, m.Storage())
	if err := r.add(10); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Retain(ctx, "bank", journal.Retention{Before: 6, Schema: 1, Cover: r.cover(1),
		Force: true}); err != nil {
		t.Fatal(err)
	}
	journaltest.Close(t, r.Journal)
	m = m.CrashClone(0)
	for bit := range 8 * 200 {
		for _, block := range []int{5, 6} { // the bases, the cut
			bad := m.CrashClone(0)
			bad.Corrupt("bank", block, bit)
			report, err := verify.Run(ctx, bad.Storage(), verify.Options{})
			if err != nil || report.Found == 0 {
				t.Fatalf("bit %d of block %d: verify finds %v, %v", bit, block, report.Problems, err)
			}
		}
	}
	for _, c := range []struct{ prefix, says string }{{"f", "what a retention kept of entity"},
		{"t", "index entry of the retention is damaged"}} {
		bad := m.CrashClone(0)
		journaltest.Overwrite(t, bad, c.prefix, "what?")
		report, err := verify.Run(ctx, bad.Storage(), verify.Options{})
		if err != nil || report.Found == 0 || !strings.Contains(fmt.Sprint(report.Problems), c.says) {
			t.Errorf("%s: verify finds %v, %v", c.prefix, report.Problems, err)
		}
	}
}

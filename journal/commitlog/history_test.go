package commitlog_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

// historyModel knows of each position the stamp of its batch, by hashing what the log store has.
type historyModel struct {
	t        *testing.T
	random   *rand.Rand
	memory   *journaltest.Memory
	lagging  *journaltest.Lagging
	journal  *commitlog.Journal
	now      atomic.Int64
	versions map[string]journal.Version
	stamps   []journal.Stamp // that of position p at p; of 0 the zero one
	origin   journal.Stamp
	seen     uint64 // batches that were hashed
	commits  int
}

// openLagging opens a journal by a clock that shows now, on a storage whose index can be held back.
func openLagging(
	t *testing.T, m *journaltest.Memory, now *atomic.Int64, batch int,
) (*commitlog.Journal, *journaltest.Lagging) {
	t.Helper()
	lagging := &journaltest.Lagging{}
	j, err := commitlog.Open(context.Background(), lagging.Wrap(m.Storage()), commitlog.Options{MaxBatchBytes: batch,
		Clock: func() journal.UnixNano { return journal.UnixNano(now.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	return j, lagging
}

func (m *historyModel) open() {
	m.journal, m.lagging = openLagging(m.t, m.memory, &m.now, 1<<(7+m.random.IntN(5)))
}

func (m *historyModel) crash() {
	m.lagging.Hold(false)
	if err := m.journal.Close(context.Background()); err != nil {
		m.t.Fatal(err)
	}
	m.memory = m.memory.CrashClone(m.random.IntN(3))
	if m.random.IntN(3) == 0 {
		if err := commitlog.Rebuild(context.Background(), m.memory.Storage(), nil); err != nil {
			m.t.Fatal(err)
		}
	}
	m.open()
}

// commit appends a few commits at once, half of which have no events, and holds their receipts to the log.
func (m *historyModel) commit() {
	type answered struct {
		id journal.CommandID
		r  journal.Receipt
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	var answers []answered
	for range 1 + m.random.IntN(6) {
		key := fmt.Sprint("k", m.random.IntN(5))
		m.commits++
		m.now.Add(int64(time.Second))
		c := &journal.Commit{Log: "bank", Expected: m.versions[key],
			Command: journal.Command{ID: journal.CommandID(fmt.Sprint("c", m.commits)), Type: "do", Key: key}}
		for range max(0, m.random.IntN(6)-3) {
			m.versions[key]++
			c.Events = append(c.Events, journal.NewEvent{Type: "done", Data: make([]byte, m.random.IntN(300))})
		}
		all.Add(1)
		err := m.journal.Append(context.Background(), c, func(r journal.Receipt, err error) {
			defer all.Done()
			if err != nil {
				m.t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, answered{c.Command.ID, r})
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	all.Wait()
	m.hash()
	for _, a := range answers {
		m.proves(a.r)
	}
	a := answers[m.random.IntN(len(answers))]
	repeated := make(chan journal.Receipt, 1)
	found, err := m.journal.Answer(context.Background(), "bank", a.id,
		func(_ *journal.Committed, r journal.Receipt, err error) { repeated <- r })
	if !found || err != nil {
		m.t.Fatalf("command %s is not known: %v", a.id, err)
	}
	m.proves(<-repeated)
}

func (m *historyModel) proves(r journal.Receipt) {
	m.t.Helper()
	if r.Stamp() != m.stamps[r.Last()] || r.Origin() != m.origin {
		m.t.Fatalf("the receipt of %s at %d has stamp %x of log %x, want %x of %x", r.CommandID(), r.Last(), r.Stamp(),
			r.Origin(), m.stamps[r.Last()], m.origin)
	}
}

// hash learns what the log has come to have.
func (m *historyModel) hash() {
	err := m.memory.Log().Blocks(context.Background(), "bank", journal.Position(len(m.stamps)-1),
		func(b journal.Block) error {
			if b.Sequence <= m.seen {
				return nil
			}
			m.seen = b.Sequence
			sum := sha256.Sum256(b.Data)
			if b.Sequence == 1 {
				m.origin = journal.Stamp(sum[:8])
			}
			what, err := format.ReadBatch(b.Data, nil)
			for range what.Events {
				m.stamps = append(m.stamps, journal.Stamp(sum[:8]))
			}
			return err
		})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *historyModel) retain() {
	if len(m.stamps) == 1 {
		return
	}
	m.lagging.Hold(false)
	m.now.Add(int64(25 * time.Hour))
	before := journal.Position(1 + m.random.IntN(len(m.stamps)))
	if _, err := m.journal.Retain(context.Background(), "bank",
		journal.Retention{Before: before, Force: true}); err != nil {
		m.t.Fatal(err)
	}
	m.hash()
}

// check asks for the stamps of all positions, by all ways.
func (m *historyModel) check() {
	m.t.Helper()
	ctx := context.Background()
	first, head := m.journal.First("bank"), m.journal.Head("bank")
	if want := journal.Position(len(m.stamps) - 1); head != want {
		m.t.Fatalf("the log ends at %d, want %d", head, want)
	}
	if got := m.journal.Origin("bank"); got != m.origin {
		m.t.Fatalf("the log is %x, and was %x", got, m.origin)
	}
	for at := journal.Position(0); at <= head+1; at++ {
		got, err := m.journal.StampAt(ctx, "bank", at)
		switch {
		case at > head:
			if journal.KindOf(err) != journal.KindInvalid {
				m.t.Fatalf("position %d behind the head: %x, %v", at, got, err)
			}
		case at+1 < first:
			if journal.KindOf(err) != journal.KindTrimmed {
				m.t.Fatalf("position %d, of which nothing is left: %x, %v", at, got, err)
			}
		case err != nil || got != m.stamps[at]:
			m.t.Fatalf("position %d of %d to %d has stamp %x, want %x: %v", at, first, head, got, m.stamps[at], err)
		}
	}
	stamped := func(e *journal.Event) error {
		if e.Stamp != m.stamps[e.Position] {
			return fmt.Errorf("the event at %d has stamp %x, want %x", e.Position, e.Stamp, m.stamps[e.Position])
		}
		return nil
	}
	if err := m.journal.Read(ctx, "bank", 0, 0, stamped); err != nil {
		m.t.Fatal(err)
	}
	for key, last := range m.versions {
		was := map[journal.Position]journal.Version{head: last}
		if err := m.journal.Entity(ctx, "bank", key, 0, 0, func(e *journal.Event) error {
			was[e.Position-1], was[e.Position] = e.Version-1, e.Version
			return stamped(e)
		}); err != nil {
			m.t.Fatal(err)
		}
		for at, want := range was {
			if v, err := m.journal.VersionAt(ctx, "bank", key, at); err != nil || v != want {
				m.t.Fatalf("%s has version %d at %d, want %d: %v", key, v, at, want, err)
			}
		}
		if err := m.journal.Entity(ctx, "bank", key, last, 0, stamped); err != nil {
			m.t.Fatalf("behind the last event of %s: %v", key, err)
		}
		if err := m.journal.Entity(ctx, "bank", key, last+1, 0, stamped); journal.KindOf(err) != journal.KindVersion {
			m.t.Fatalf("a version of %s that never was: %v", key, err)
		}
	}
}

// A stamp is what the batch on disk says, whichever way it is learned, also through retentions, crashes and a new
// index; and the log stays the same one.
func TestStamps(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range 30 {
		m := &historyModel{t: t, random: rand.New(rand.NewPCG(seed, uint64(round))), memory: journaltest.NewMemory(),
			versions: map[string]journal.Version{}, stamps: make([]journal.Stamp, 1), origin: journal.Unborn("bank")}
		m.open()
		if m.journal.Origin("bank") != m.origin {
			t.Fatal("an empty log has another identity than its name gives it")
		}
		for range 40 {
			switch m.random.IntN(12) {
			case 0:
				m.retain()
			case 1:
				m.crash()
			case 2:
				m.lagging.Hold(true)
			case 3:
				m.lagging.Hold(false)
			default:
				m.commit()
			}
			m.check()
		}
		m.lagging.Hold(false)
		if err := m.journal.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if report, err := verify.Run(context.Background(), m.memory.CrashClone(0).Storage(),
			verify.Options{}); err != nil || report.Found > 0 {
			t.Fatalf("%v, %v", report.Problems, err)
		}
	}
}

// Two logs that share a beginning and go on apart have the same identity, and another stamp from there on.
func TestHistoriesPart(t *testing.T) {
	ctx := context.Background()
	write := func(m *journaltest.Memory, from, to int, at journal.UnixNano) *commitlog.Journal {
		j, err := commitlog.Open(ctx, m.Storage(), commitlog.Options{Clock: func() journal.UnixNano { return at }})
		if err != nil {
			t.Fatal(err)
		}
		for i := from; i < to; i++ {
			if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", journal.Version(i), fmt.Sprint("c", i),
				1)); err != nil {
				t.Fatal(err)
			}
		}
		return j
	}
	one := journaltest.NewMemory()
	j := write(one, 0, 3, 1e18)
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	shut := func(j *commitlog.Journal) *commitlog.Journal {
		t.Cleanup(func() {
			if err := j.Close(ctx); err != nil {
				t.Error(err)
			}
		})
		return j
	}
	a, b := write(one.CrashClone(0), 3, 6, 1e18+1), write(one.CrashClone(0), 3, 6, 1e18+2)
	shut(a)
	shut(b)
	for at := journal.Position(1); at <= 6; at++ {
		x, errA := a.StampAt(ctx, "bank", at)
		y, errB := b.StampAt(ctx, "bank", at)
		if errA != nil || errB != nil || (x == y) != (at <= 3) {
			t.Errorf("position %d: %x and %x, %v, %v", at, x, y, errA, errB)
		}
	}
	if a.Origin("bank") != b.Origin("bank") {
		t.Error("they are taken for two logs")
	}
	if c := shut(write(journaltest.NewMemory(), 0, 1, 1e18+3)); c.Origin("bank") == a.Origin("bank") {
		t.Error("another journal's log is taken for the same")
	}
}

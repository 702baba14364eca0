package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// model is a hub, and what its subscribers must get.
type model struct {
	t       *testing.T
	lagging *journaltest.Lagging
	journal *commitlog.Journal
	hub     *Hub

	mu       sync.Mutex // guards all below
	now      journal.UnixNano
	versions map[string]journal.Version
	events   []journal.Event // all there were, that at position p at p-1; before they are committed
}

func (m *model) clock() journal.UnixNano {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

func (m *model) later(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now += journal.UnixNano(d)
}

// commit appends a commit, which is published once it is on disk.
func (m *model) commit(random *rand.Rand, n int, written *sync.WaitGroup) {
	m.mu.Lock()
	key := fmt.Sprint("k", random.IntN(6))
	c := &journal.Commit{Log: "bank", Expected: m.versions[key],
		Command: journal.Command{ID: journal.CommandID(fmt.Sprint("c", n)), Type: "do", Key: key}}
	for range random.IntN(4) {
		m.versions[key]++
		e := event(fmt.Sprint("t", random.IntN(3)), strings.Repeat("7", 1+random.IntN(100)))
		if random.IntN(100) == 0 {
			e.Data = []byte(strings.Repeat("7", stepBytes))
		}
		c.Events = append(c.Events, e)
		m.events = append(m.events, journal.Event{Key: key, Version: m.versions[key], Type: e.Type, Data: e.Data})
	}
	m.mu.Unlock()
	written.Add(1)
	err := m.journal.Append(context.Background(), c, func(r journal.Receipt, err error) {
		defer written.Done()
		if err != nil {
			m.t.Error(err)
			return
		}
		if n%50 != 0 { // now and then the ring has a gap
			m.hub.Publish(r, c)
		}
	})
	if err != nil {
		m.t.Error(err)
	}
}

// write commits, holds the index up, and deletes what is old.
func (m *model) write(random *rand.Rand, commits, begin int) {
	var written sync.WaitGroup
	for n := range commits {
		switch m.commit(random, begin+n, &written); random.IntN(60) {
		case 0:
			m.lagging.Hold(true)
		case 1, 2:
			m.lagging.Hold(false)
		case 3:
			m.lagging.Hold(false)
			written.Wait()
			m.later(25 * time.Hour)
			if head := m.journal.Head("bank"); head > 0 {
				before := journal.Position(1 + random.Uint64N(uint64(head)))
				if _, err := m.journal.Retain(context.Background(), "bank", journal.Retention{Before: before,
					Force: true}); err != nil {
					m.t.Error(err)
				}
			}
		}
	}
	m.lagging.Hold(false)
	written.Wait()
}

func randomFilter(random *rand.Rand) (f Filter) {
	if random.IntN(3) > 0 {
		for range 1 + random.IntN(3) {
			f.Keys = append(f.Keys, service.Key(fmt.Sprint("k", random.IntN(8)))) // two of them have no events
		}
	}
	if random.IntN(3) == 0 {
		f.Types = append(f.Types, service.Type(fmt.Sprint("t", random.IntN(4))))
	}
	return f
}

// read follows with one filter until it has come to the end of the log, which is known
// once done is closed. It goes away and resumes now and then, and where a retention has
// deleted what follows it begins with what there is.
func (m *model) read(random *rand.Rand, f Filter, done <-chan struct{}) error {
	x := newFilter(f)
	var c *Cursor
	at := journal.Position(random.IntN(2)) * m.hub.Head()
	for {
		if c == nil || random.IntN(20) == 0 {
			var err error
			if c, err = m.hub.Subscribe(at, f, fmt.Sprint(random.IntN(3))); err != nil {
				if first := m.journal.First("bank"); service.KindOf(err) != service.KindBadCursor || at+1 >= first {
					return fmt.Errorf("subscribe after %d, first %d: %w", at, first, err)
				}
				at = m.journal.First("bank") - 1
				continue
			}
			at = c.Position()
		}
		ended := false
		select {
		case <-done:
			ended = true
		default:
		}
		var events []*service.Event
		var err error
		if random.IntN(2) == 0 {
			events, _, err = c.Poll(context.Background(), random.IntN(40))
		} else {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(3))*time.Millisecond)
			events, err = c.Next(ctx, random.IntN(40))
			cancel()
			if ctx.Err() != nil && err == context.DeadlineExceeded {
				err = nil
			}
		}
		if err != nil {
			if err := m.same(&x, at, c.Position(), nil); err != nil {
				return fmt.Errorf("%+v: before an error: %w", f, err)
			}
			at = c.Position()
			if first := m.journal.First("bank"); service.KindOf(err) != service.KindBadCursor || at+1 >= first {
				return fmt.Errorf("after %d, first %d: %w", at, first, err)
			}
			at = m.journal.First("bank") - 1
			c = nil
			continue
		}
		if err := m.same(&x, at, c.Position(), events); err != nil {
			return fmt.Errorf("%+v: %w", f, err)
		}
		at = c.Position()
		if ended && at >= m.journal.Head("bank") {
			return nil
		}
	}
}

// same holds what a cursor gave on its way from one position to another to the model.
func (m *model) same(f *filter, after, through journal.Position, got []*service.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := after + 1; p <= through; p++ {
		want := &m.events[p-1]
		if !f.wants(want) {
			continue
		}
		if len(got) == 0 || got[0].Position != p {
			return fmt.Errorf("from %d to %d: position %d is missing", after, through, p)
		}
		if e := got[0]; e.Key != want.Key || e.Version != want.Version || e.Type != want.Type ||
			string(e.Data) != string(want.Data) || e.CommandType != "do" {
			return fmt.Errorf("position %d is another event: %s at %d", p, e.Key, e.Version)
		}
		got = got[1:]
	}
	if len(got) > 0 {
		return fmt.Errorf("from %d to %d: position %d is too much", after, through, got[0].Position)
	}
	return nil
}

// TestModel has many readers with all kinds of filters beside a writer, an index that
// lags, retentions and restarts: each gets what it wants, once, in order.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	memory := journaltest.NewMemory()
	m := &model{t: t, now: 1e18, versions: map[string]journal.Version{}}
	for round := range 6 {
		random := rand.New(rand.NewPCG(seed, uint64(round)))
		m.lagging = &journaltest.Lagging{}
		var err error
		m.journal, err = commitlog.Open(context.Background(), m.lagging.Wrap(memory.Storage()),
			commitlog.Options{Clock: m.clock, MaxBatchBytes: 1 << (9 + random.IntN(6))})
		if err != nil {
			t.Fatal(err)
		}
		turns := fair.New(fair.Options{Slots: 1 + random.IntN(3), Length: 50 * time.Microsecond})
		backlog := NewBacklog(turns, []int64{-1, 4 << 20, 1 << 16, 0}[random.IntN(4)])
		m.hub = New(Options{Service: "bank", Reader: m.journal, RingBytes: roomFor(1 << random.IntN(10)),
			Backlog: backlog})
		filters := []Filter{{}, randomFilter(random), randomFilter(random), randomFilter(random)}
		done := make(chan struct{})
		var readers sync.WaitGroup
		for n := range 24 {
			random := rand.New(rand.NewPCG(seed, uint64(100*round+n+10)))
			f := filters[n%len(filters)]
			f.Keys = slices.Clone(f.Keys)
			random.Shuffle(len(f.Keys), func(i, k int) { f.Keys[i], f.Keys[k] = f.Keys[k], f.Keys[i] })
			readers.Go(func() {
				if err := m.read(random, f, done); err != nil {
					t.Error(err)
				}
			})
		}
		m.write(random, 400, 1000*round)
		close(done)
		readers.Wait()
		if s := turns.Stats(); s.Waiting != 0 {
			t.Errorf("%d still wait", s.Waiting)
		}
		if b := backlog.Bytes(); b > max(backlog.maxBytes, 0) {
			t.Errorf("the backlog keeps %d bytes, and may %d", b, backlog.maxBytes)
		}
		m.hub.Close(service.Errorf(service.KindUnavailable, "restart"))
		if b := backlog.Bytes(); b != 0 || len(backlog.pieces) != 0 {
			t.Errorf("%d bytes are left of a hub that is closed", b)
		}
		if err := m.journal.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
		memory = memory.CrashClone(random.IntN(2))
	}
}

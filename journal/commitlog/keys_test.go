package commitlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// keysModel is a journal, and what must be in it.
type keysModel struct {
	t        *testing.T
	random   *rand.Rand
	memory   *journaltest.Memory
	lagging  *journaltest.Lagging // around it
	journal  *commitlog.Journal
	now      atomic.Int64 // the clock, which the journal asks
	held     bool         // the index is
	keys     []string
	versions map[string]journal.Version
	events   []journal.Event // all there were, that at position p at p-1
	commits  int
}

func (m *keysModel) open() {
	m.journal, m.lagging = openLagging(m.t, m.memory, &m.now, 1<<(8+m.random.IntN(8)))
}

func (m *keysModel) close() {
	m.hold(false)
	if err := m.journal.Close(context.Background()); err != nil {
		m.t.Fatal(err)
	}
	m.memory = m.memory.CrashClone(m.random.IntN(3)) // the index is completed from the log
}

func (m *keysModel) hold(held bool) {
	m.held = held
	m.lagging.Hold(held)
}

// commit appends, in one go, some commits to one entity or several.
func (m *keysModel) commit() {
	var all sync.WaitGroup
	key := m.keys[m.random.IntN(len(m.keys))]
	for range 1 + m.random.IntN(20) {
		if m.random.IntN(2) == 0 {
			key = m.keys[m.random.IntN(len(m.keys))]
		}
		m.commits++
		m.now.Add(int64(time.Second))
		c := &journal.Commit{Log: "bank", Expected: m.versions[key],
			Command: journal.Command{ID: journal.CommandID(fmt.Sprint("c", m.commits)), Type: "do", Key: key}}
		for range m.random.IntN(5) {
			m.versions[key]++
			e := journal.NewEvent{Type: fmt.Sprint("type", m.random.IntN(3)), Data: make([]byte, m.random.IntN(1000)),
				Metadata: make([]byte, m.random.IntN(10))}
			if m.random.IntN(200) == 0 {
				e.Data = make([]byte, 200<<10) // more than is read in advance
			}
			for i := range e.Data {
				e.Data[i] = byte(m.commits)
			}
			c.Events = append(c.Events, e)
			m.events = append(m.events, journal.Event{Key: key, Version: m.versions[key], Type: e.Type, Data: e.Data,
				Metadata: e.Metadata})
		}
		all.Add(1)
		if err := m.journal.Append(context.Background(), c, func(_ journal.Receipt, err error) {
			if err != nil {
				m.t.Error(err)
			}
			all.Done()
		}); err != nil {
			m.t.Fatal(err)
		}
	}
	all.Wait()
}

func (m *keysModel) retain() {
	if len(m.events) == 0 {
		return
	}
	m.hold(false)
	m.now.Add(int64(25 * time.Hour))
	before := journal.Position(1 + m.random.IntN(len(m.events)+1))
	if _, err := m.journal.Retain(context.Background(), "bank",
		journal.Retention{Before: before, Force: true}); err != nil {
		m.t.Fatal(err)
	}
}

// some chooses entities, some of which may have no events.
func (m *keysModel) some() []string {
	some := slices.Clone(append(m.keys, "nobody", "bankrupt"))
	m.random.Shuffle(len(some), func(i, k int) { some[i], some[k] = some[k], some[i] })
	return some[:1+m.random.IntN(len(some))]
}

var errEnough = errors.New("enough")

// read reads with one reader from a place to the end of the index, in many steps, some
// of which end early, and holds what comes to the model.
func (m *keysModel) read() {
	ctx := context.Background()
	keys := m.some()
	r := m.journal.ReadKeys("bank", keys)
	first := m.journal.First("bank")
	at := first - 1
	if n := len(m.events) - int(at); n > 0 && m.random.IntN(3) > 0 {
		at += journal.Position(m.random.IntN(n))
	}
	for steps := 0; at < m.journal.Indexed("bank"); steps++ {
		limit, enough, looks := m.random.IntN(20), -1, -1
		if m.random.IntN(4) == 0 {
			enough = m.random.IntN(10)
		}
		if m.random.IntN(4) == 0 {
			looks = m.random.IntN(4)
		}
		var got []journal.Event
		through := m.journal.Indexed("bank")
		next, err := r.Read(ctx, at, limit, func() bool { looks--; return looks != 0 }, func(e *journal.Event) error {
			if len(got) == enough {
				return errEnough
			}
			own := *e
			own.Data, own.Metadata = slices.Clone(e.Data), slices.Clone(e.Metadata)
			got = append(got, own)
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) || limit > 0 && len(got) > limit {
			m.t.Fatalf("behind %d, %d events: %v", at, len(got), err)
		}
		if next < at || next == at && looks < 0 && enough != 0 {
			m.t.Fatalf("a step from %d came to %d, of %d", at, next, through)
		}
		m.same(keys, at, next, got)
		at = next
		switch m.random.IntN(20) {
		case 0: // elsewhere
			if at > first {
				at = first + journal.Position(m.random.IntN(int(at-first)))
			}
		case 1:
			at += journal.Position(m.random.IntN(int(m.journal.Indexed("bank")-at) + 1))
		case 2:
			if !m.held {
				m.commit()
			}
		case 3:
			r = m.journal.ReadKeys("bank", keys)
		}
	}
}

func (m *keysModel) same(keys []string, after, through journal.Position, got []journal.Event) {
	for p := after + 1; p <= through; p++ {
		want := &m.events[p-1]
		if !slices.Contains(keys, want.Key) {
			continue
		}
		if len(got) == 0 {
			m.t.Fatalf("behind %d: position %d is missing", after, p)
		}
		e := &got[0]
		if e.Position != p || e.Key != want.Key || e.Version != want.Version || e.Type != want.Type ||
			string(e.Data) != string(want.Data) || string(e.Metadata) != string(want.Metadata) ||
			e.CommandType != "do" || e.Time == 0 {
			m.t.Fatalf("position %d: got %d of %s at %d", p, e.Position, e.Key, e.Version)
		}
		got = got[1:]
	}
	if len(got) > 0 {
		m.t.Fatalf("behind %d: position %d is too much", after, got[0].Position)
	}
}

// TestReadingByKey holds readers to a model: logs with many and few entities, commits
// without events, an index that lags, retentions, and readers that stop anywhere.
func TestReadingByKey(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for n := range 8 {
		m := &keysModel{t: t, random: rand.New(rand.NewPCG(seed, uint64(n))), versions: map[string]journal.Version{},
			memory: journaltest.NewMemory()}
		for i := range []int{1, 2, 7, 60}[n%4] {
			m.keys = append(m.keys, fmt.Sprint("k", i))
		}
		m.now.Store(1e18)
		m.open()
		for range 60 {
			switch m.random.IntN(12) {
			case 0:
				m.hold(true)
			case 1:
				m.hold(false)
			case 2:
				m.retain()
			case 3:
				m.close()
				m.open()
				if at := m.journal.Indexed("bank"); at != journal.Position(len(m.events)) {
					t.Fatalf("after opening, %d of %d events are indexed", at, len(m.events))
				}
			case 4, 5, 6:
				m.read()
			default:
				m.commit()
			}
		}
		m.close()
		if t.Failed() {
			return
		}
	}
}

// Places that a retention has deleted are refused, also for who had a reader before.
func TestReadingByKeyAfterARetention(t *testing.T) {
	ctx := context.Background()
	r := newRetainer(t, journaltest.NewMemory().Storage())
	if err := r.add(20); err != nil {
		t.Fatal(err)
	}
	for r.Indexed("bank") < 20 {
		runtime.Gosched()
	}
	journaltest.Advance(r.now, journal.UnixNano(25*time.Hour))
	keys := r.ReadKeys("bank", []string{"k1", "k4"})
	var got []journal.Position
	read := func(after journal.Position, limit int) (journal.Position, error) {
		got = nil
		return keys.Read(ctx, after, limit, nil, func(e *journal.Event) error {
			got = append(got, e.Position)
			return nil
		})
	}
	if at, err := read(0, 2); err != nil || !slices.Equal(got, []journal.Position{2, 5}) || at != 5 {
		t.Fatalf("%v, %d, %v", got, at, err)
	}
	if _, err := r.Retain(ctx, "bank", journal.Retention{Before: 11, Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := read(5, 0); journal.KindOf(err) != journal.KindTrimmed {
		t.Errorf("got %v", err)
	}
	if at, err := read(0, 0); err != nil || !slices.Equal(got, []journal.Position{12, 15, 17, 20}) || at != 20 {
		t.Errorf("%v, %d, %v", got, at, err)
	}
	if at, err := read(14, 0); err != nil || !slices.Equal(got, []journal.Position{15, 17, 20}) || at != 20 {
		t.Errorf("%v, %d, %v", got, at, err)
	}
	journaltest.Close(t, r.Journal)
}

// Damage of the index is told, and is no event.
func TestReadingByKeyMeetsDamage(t *testing.T) {
	ctx := context.Background()
	m := journaltest.NewMemory()
	j := journaltest.Open(t, m.Storage(), commitlog.Options{})
	fill(t, j, 0, 10)
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	m = m.CrashClone(0)
	var broken []byte
	prefix := []byte{'e'}
	if err := m.Index().Scan(ctx, prefix, prefix, func(key, value []byte) error {
		if key[len(key)-1] == 7 {
			broken = slices.Clone(key)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(journal.IndexStore) error{
		"changed": func(i journal.IndexStore) error {
			return i.Update(ctx, []journal.Pair{{Key: broken, Value: []byte("nonsense")}})
		},
		"missing": func(i journal.IndexStore) error { return i.Delete(ctx, [][]byte{broken}) },
	} {
		t.Run(name, func(t *testing.T) {
			m := m.CrashClone(0)
			if err := damage(m.Index()); err != nil {
				t.Fatal(err)
			}
			j := journaltest.Open(t, m.Storage(), commitlog.Options{})
			keys := j.ReadKeys("bank", []string{"k"})
			for _, limit := range []int{0, 6} {
				n := 0
				at, err := keys.Read(ctx, 0, limit, nil, func(*journal.Event) error { n++; return nil })
				if limit == 0 && (journal.KindOf(err) != journal.KindCorrupt || at != 0) || limit == 6 &&
					(err != nil || at != 6) || n != 6 {
					t.Errorf("%d events, up to %d, %v", n, at, err)
				}
			}
			if _, err := keys.Read(ctx, 6, 0, nil, func(*journal.Event) error { return nil }); journal.KindOf(
				err) != journal.KindCorrupt {
				t.Errorf("got %v", err)
			}
			if at, err := keys.Read(ctx, 8, 0, nil, func(*journal.Event) error { return nil }); name == "changed" &&
				(err != nil || at != 10) {
				t.Errorf("behind it: %d, %v", at, err)
			}
		})
	}
}

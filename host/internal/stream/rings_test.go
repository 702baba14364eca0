package stream

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// empty is a journal without events.
type empty struct{ Reader }

func (empty) Head(journal.LogName) journal.Position  { return 0 }
func (empty) First(journal.LogName) journal.Position { return 1 }

// held is what the hubs hold, which has to be what is counted.
func (r *Rings) held(t *testing.T) (all int64) {
	t.Helper()
	for h := range r.hubs {
		all += h.Stats().Bytes
		if h.ring.count > len(h.ring.slots) || len(h.ring.slots) > 8*max(h.ring.count, minSlots) {
			t.Errorf("%d events in %d slots", h.ring.count, len(h.ring.slots))
		}
	}
	if used := r.used.Load(); used != all {
		t.Errorf("%d bytes are held, %d are counted", all, used)
	}
	return all
}

// However many services there are and whatever they publish, their rings are together not
// larger than they may be; a service with few events keeps them; and subscribers have every
// event, from memory or not.
func TestAllRingsTogetherAreBounded(t *testing.T) {
	const maxBytes, greedy = 1 << 20, 40
	rings := NewRings(maxBytes)
	small := newBench(t, Options{Rings: rings})
	small.fill(20)
	var benches []*bench
	for range greedy {
		benches = append(benches, newBench(t, Options{Rings: rings, RingBytes: maxBytes / 2}))
	}
	large := strings.Repeat("x", 10_000)
	for range 8 {
		for _, b := range benches {
			b.commit("alice", event("up", `"`+large+`"`))
			if held := rings.held(t); held > maxBytes {
				t.Fatalf("the rings hold %d bytes, %d are allowed", held, maxBytes)
			}
		}
	}
	if got := small.hub.Stats(); got.Events != 20 {
		t.Errorf("of 20 small events %d are left", got.Events)
	}
	for _, b := range append(benches, small) {
		next(t, b.subscribe(0, Filter{}), int(b.hub.Head()), 100)
	}
	u := rings.Usage()
	if u.Used != rings.held(t) || u.Limit != maxBytes || len(u.Holders) != ringHolders || u.Holders[0].Name != "bank" ||
		u.Holders[0].Used < u.Holders[4].Used {
		t.Errorf("usage %+v", u)
	}
	for _, b := range append(benches, small) {
		b.hub.Close(service.Errorf(service.KindNotFound, "over"))
		b.commit("alice", event("up", "1")) // late
	}
	if n := rings.used.Load(); n != 0 || len(rings.hubs) != 0 {
		t.Errorf("when all are closed %d bytes are held, by %d hubs", n, len(rings.hubs))
	}
}

// What many publish at a time does not go uncounted, and a service that is idle holds no
// slots.
func TestManyPublishIntoRings(t *testing.T) {
	const maxBytes = 1 << 20
	rings := NewRings(maxBytes)
	if h := New(Options{Service: "idle", Reader: empty{}, Rings: rings}); h.ring.slots != nil {
		t.Errorf("a hub without events has %d slots", len(h.ring.slots))
	}
	var all sync.WaitGroup
	for n := range uint64(8) {
		all.Go(func() {
			h := New(Options{Service: service.Name(fmt.Sprint("s", n)), Reader: empty{}, Rings: rings})
			random := rand.New(rand.NewPCG(n, n))
			for range 2000 {
				e := &service.Event{Event: journal.Event{Data: make([]byte, random.IntN(3000))}}
				h.mu.Lock()
				h.changed(func() { h.ring.push(e) })
				h.mu.Unlock()
				rings.settle()
				if used := rings.used.Load(); used > maxBytes+8*10_000 { // what each has just put in
					t.Errorf("%d bytes", used)
				}
				if random.IntN(500) == 0 {
					h.mu.Lock()
					h.changed(func() { h.ring.reset(h.ring.head) })
					h.mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if held := rings.held(t); held > maxBytes || held < maxBytes/2 {
		t.Errorf("%d bytes of %d are held", held, maxBytes)
	}
}

func TestLevel(t *testing.T) {
	for _, c := range []struct {
		sizes    []int64
		maxBytes int64
		want     int64
	}{
		{[]int64{10, 20, 30}, 60, math.MaxInt64},
		{[]int64{30, 10, 20}, 50, 20},
		{[]int64{30, 10, 20}, 30, 10},
		{[]int64{100}, 7, 7},
		{[]int64{100, 100, 0, 1}, 41, 20},
		{nil, 1, math.MaxInt64},
	} {
		if got := level(c.sizes, c.maxBytes); got != c.want {
			t.Errorf("%v to %d: %d, want %d", c.sizes, c.maxBytes, got, c.want)
		}
	}
}

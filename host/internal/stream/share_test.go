package stream

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Many subscribers hold the same events: each event is counted once, the sum never exceeds the
// limit, and nothing is left in the end, also if the hub is closed first.
func TestShares(t *testing.T) {
	const limit = 200_000
	host := budget.New(budget.Limits{budget.FlightBytes: limit})
	b := newBench(t, Options{Account: host.Child("bank", nil)})
	for _, size := range []int{1, service.LargeData - 2, service.LargeData, 50_000} {
		b.commit("alice", event("up", `"`+strings.Repeat("x", size)+`"`))
	}
	events, err := b.subscribe(0, Filter{}).Next(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	// A small event has a text to share in each form, a large one its data in both.
	var shares []*service.Share
	for _, e := range events {
		for form := range service.EventForm(2) {
			if share := e.Share(form); !slices.Contains(shares, share) {
				shares = append(shares, share)
			}
		}
	}
	if len(shares) != 6 {
		t.Errorf("two small events and two large ones have %d shares", len(shares))
	}
	sum := 0
	for _, share := range shares {
		sum += share.Bytes()
		for range 3 {
			if !share.Take() {
				t.Fatal("there is room")
			}
		}
	}
	if used := host.Used(budget.FlightBytes); used != int64(sum) {
		t.Errorf("%d bytes are counted, %d are shared", used, sum)
	}
	for _, share := range shares {
		for range 3 {
			share.Give()
		}
	}
	host.SetLimit(budget.FlightBytes, 60_000) // not enough for all
	var all sync.WaitGroup
	refused := make([]bool, 8)
	for n := range refused {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			for range 3000 {
				share := shares[random.IntN(len(shares))]
				if !share.Take() {
					refused[n] = true
					continue
				}
				other := shares[random.IntN(len(shares))]
				if other.Take() {
					other.Give()
				}
				if used := host.Used(budget.FlightBytes); used > 60_000 || used < int64(share.Bytes()) {
					t.Errorf("%d bytes are counted while %d are held", used, share.Bytes())
				}
				share.Give()
			}
		})
	}
	all.Wait()
	if used := host.Used(budget.FlightBytes); used != 0 {
		t.Errorf("%d bytes are left", used)
	}
	last := shares[0]
	if !last.Take() {
		t.Fatal("there is room")
	}
	b.hub.Close(errors.New("over"))
	last.Give()
	if used := host.Used(budget.FlightBytes); used != 0 {
		t.Errorf("%d bytes are left of a hub that is closed", used)
	}
}

// One step returns a bounded number of bytes, also from the ring, however large the events are.
func TestAStepIsBoundedInBytes(t *testing.T) {
	b := newBench(t, Options{})
	for range 12 {
		b.commit("alice", event("up", `"`+strings.Repeat("x", stepBytes/4)+`"`))
	}
	for _, c := range []*Cursor{b.subscribe(0, Filter{}), b.subscribe(0, Filter{Types: []service.Type{"up"}})} {
		for _, want := range []int{4, 4, 4} {
			events, err := c.Next(t.Context(), 0)
			if err != nil || len(events) != want {
				t.Fatalf("%d events, %v", len(events), err)
			}
			c.Release()
			if len(c.out) != 0 || c.out[:want][0] != nil {
				t.Error("the events are still held")
			}
		}
	}
}

// TestEncodedOnce has all subscribers share one encoding, and events read from
// the journal look as those from memory.
func TestEncodedOnce(t *testing.T) {
	b := newBench(t, Options{})
	b.fill(3)
	one, err := b.subscribe(0, Filter{}).Next(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.subscribe(0, Filter{}).Next(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	b.open(Options{})
	read, err := b.subscribe(0, Filter{}).Next(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range one {
		for form := range service.EventForm(2) {
			if &one[i].Text(form)[0] != &other[i].Text(form)[0] {
				t.Errorf("event %d was encoded twice", i)
			}
			if !bytes.Equal(one[i].Text(form), read[i].Text(form)) {
				t.Errorf("in memory %s\nin the journal %s", one[i].Text(form), read[i].Text(form))
			}
		}
	}
}

package stream

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Rings bounds the recent events that all hubs of a host keep in memory together. When there are
// too many, the largest rings lose their oldest events, so that a service with few events keeps
// them whatever others publish. Subscribers read lost events from the log. Rings is safe for
// concurrent use.
type Rings struct {
	maxBytes int64
	used     atomic.Int64 // by all rings; each hub changes it under its own lock

	mu   sync.Mutex // guards hubs, and is held while rings shrink; lock it before a hub's
	hubs map[*Hub]struct{}
}

// DefaultRingsBytes is the default bound of all rings together, in bytes.
const DefaultRingsBytes = 64 << 20

// NewRings makes a bound for the rings of many hubs, in bytes (0: the default).
func NewRings(bytes int64) *Rings {
	if bytes <= 0 {
		bytes = DefaultRingsBytes
	}
	return &Rings{maxBytes: bytes, hubs: map[*Hub]struct{}{}}
}

func (r *Rings) add(h *Hub) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hubs[h] = struct{}{}
}

func (r *Rings) remove(h *Hub) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.hubs, h)
}

// slack is the divisor of the part of the bound that is freed at a time, so that settle seldom has
// to look at all hubs.
const slack = 8

// settle has the largest rings shrink if all rings together are too large. It is called after each
// publication, without the lock of a hub. So the bound is exceeded by no more than what is being
// published.
func (r *Rings) settle() {
	if r.used.Load() <= r.maxBytes {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used.Load() <= r.maxBytes { // another goroutine was faster
		return
	}
	sizes := make([]int64, 0, len(r.hubs))
	for h := range r.hubs {
		sizes = append(sizes, h.Stats().Bytes)
	}
	level := level(sizes, r.maxBytes-r.maxBytes/slack)
	for h := range r.hubs {
		h.shrink(level)
	}
}

// level returns the largest size such that all rings together fit into maxBytes if each larger ring
// shrinks to it.
func level(sizes []int64, maxBytes int64) int64 {
	slices.Sort(sizes)
	for i, size := range sizes {
		if each := maxBytes / int64(len(sizes)-i); size > each {
			return each
		}
		maxBytes -= size
	}
	return math.MaxInt64
}

// ringHolders bounds how many services a usage names.
const ringHolders = 5

// Usage is the size of all rings, with the services whose rings are the largest. A full ring
// refuses nothing.
func (r *Rings) Usage() service.ResourceUsage {
	u := service.ResourceUsage{Resource: "recent_event_bytes", Used: r.used.Load(), Limit: r.maxBytes}
	r.mu.Lock()
	hubs := slices.Collect(maps.Keys(r.hubs))
	r.mu.Unlock()
	for _, h := range hubs {
		if bytes := h.Stats().Bytes; bytes > 0 {
			u.Holders = append(u.Holders, service.ResourceHolder{Name: string(h.options.Service), Used: bytes})
		}
	}
	slices.SortFunc(u.Holders, func(x, y service.ResourceHolder) int {
		return cmp.Or(cmp.Compare(y.Used, x.Used), cmp.Compare(x.Name, y.Name))
	})
	u.Holders = u.Holders[:min(ringHolders, len(u.Holders))]
	return u
}

// shrink removes the oldest events of a hub's ring until it is not larger than to, in bytes.
func (h *Hub) shrink(to int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed(func() { h.ring.shrink(to) })
}

// changed runs do, which changes the ring, and updates the sum of all rings. The caller holds mu.
func (h *Hub) changed(do func()) {
	before := h.ring.bytes
	do()
	h.options.Rings.used.Add(h.ring.bytes - before)
}

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

// Rings bounds the recent events that all hubs of a host keep in memory together. When
// there are more, the largest rings lose their oldest events, so that a service with few
// keeps them whatever others publish; its subscribers read the log for what is gone. It is
// safe for concurrent use.
type Rings struct {
	most int64
	used atomic.Int64 // by all; each hub changes it under its own lock

	mu   sync.Mutex // guards hubs, and is held while rings shrink; before the lock of a hub
	hubs map[*Hub]struct{}
}

// DefaultRingsBytes is how much all rings keep by default, in bytes.
const DefaultRingsBytes = 64 << 20

// NewRings makes a bound for the rings of many hubs, in bytes (0: the default).
func NewRings(bytes int64) *Rings {
	if bytes <= 0 {
		bytes = DefaultRingsBytes
	}
	return &Rings{most: bytes, hubs: map[*Hub]struct{}{}}
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

// slack is the part of the bound that is made free at a time, so that the hubs are looked
// at seldom.
const slack = 8

// settle has the largest rings shrink if there are too many events. It is called without
// the lock of a hub after each publication, and so the bound is exceeded by no more than
// what is being published.
func (r *Rings) settle() {
	if r.used.Load() <= r.most {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used.Load() <= r.most { // somebody else has done it
		return
	}
	sizes := make([]int64, 0, len(r.hubs))
	for h := range r.hubs {
		sizes = append(sizes, h.Stats().Bytes)
	}
	level := level(sizes, r.most-r.most/slack)
	for h := range r.hubs {
		h.shrink(level)
	}
}

// level is the greatest size to which all have to shrink that are larger, so that together
// they are not larger than most.
func level(sizes []int64, most int64) int64 {
	slices.Sort(sizes)
	for i, size := range sizes {
		if each := most / int64(len(sizes)-i); size > each {
			return each
		}
		most -= size
	}
	return math.MaxInt64
}

// ringHolders bounds how many services are named in a usage.
const ringHolders = 5

// Usage is how much all rings hold, and the services that hold most. Nothing is ever
// refused.
func (r *Rings) Usage() service.ResourceUsage {
	u := service.ResourceUsage{Resource: "recent_event_bytes", Used: r.used.Load(), Limit: r.most}
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

// shrink takes the oldest events out of a hub's ring until it is not larger than a size.
func (h *Hub) shrink(to int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed(func() { h.ring.shrink(to) })
}

// changed does something with the ring, and has what it holds then counted. The caller
// holds mu.
func (h *Hub) changed(do func()) {
	before := h.ring.bytes
	do()
	h.options.Rings.used.Add(h.ring.bytes - before)
}

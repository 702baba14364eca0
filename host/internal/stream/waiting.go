package stream

import (
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// waiting holds the filtered cursors that wait at the head, by what they want. A commit wakes those
// that want it and costs nothing for the others, however many there are. The hub's lock guards it.
type waiting struct {
	byKey  map[string]map[*waiter]struct{}
	byType map[string]map[*waiter]struct{} // those without keys in their filter
}

// waiter is one cursor that waits.
type waiter struct {
	filter *filter
	ready  chan struct{} // closed when it is woken
	woken  bool
	to     journal.Position // if woken: no event up to here is wanted
}

// places returns the sets that a waiter is in, and its names in them.
func (w *waiting) places(of *waiter) (sets *map[string]map[*waiter]struct{}, names map[string]struct{}) {
	if of.filter.keys != nil {
		return &w.byKey, of.filter.keys
	}
	return &w.byType, of.filter.types
}

func (w *waiting) add(f *filter) *waiter {
	n := &waiter{filter: f, ready: make(chan struct{})}
	sets, names := w.places(n)
	if *sets == nil {
		*sets = map[string]map[*waiter]struct{}{}
	}
	for name := range names {
		if (*sets)[name] == nil {
			(*sets)[name] = map[*waiter]struct{}{}
		}
		(*sets)[name][n] = struct{}{}
	}
	return n
}

func (w *waiting) remove(n *waiter) {
	sets, names := w.places(n)
	for name := range names {
		if delete((*sets)[name], n); len((*sets)[name]) == 0 {
			delete(*sets, name)
		}
	}
}

// wake wakes a waiter. It wants none of the events up to the position to.
func (n *waiter) wake(to journal.Position) {
	if !n.woken {
		n.woken, n.to = true, to
		close(n.ready)
	}
}

// publish wakes the cursors that want e. The waiters that were not woken have seen, or do not want,
// all events before e.
func (w *waiting) publish(e *service.Event) {
	for _, set := range []map[*waiter]struct{}{w.byKey[e.Key], w.byType[e.Type]} {
		for n := range set {
			if n.filter.wants(&e.Event) {
				n.wake(e.Position - 1)
			}
		}
	}
}

// wakeAll wakes all waiters: it is unknown which of the events after the position to they want.
func (w *waiting) wakeAll(to journal.Position) {
	for _, sets := range []map[string]map[*waiter]struct{}{w.byKey, w.byType} {
		for _, set := range sets {
			for n := range set {
				n.wake(to)
			}
		}
	}
}

package stream

import (
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// waiting are the cursors at the head that do not want everything, by what they want: a
// commit wakes those that want it and costs nothing for the others, however many they are.
// The hub's lock guards it.
type waiting struct {
	byKey  map[string]map[*waiter]struct{}
	byType map[string]map[*waiter]struct{} // those that are not by key
}

// waiter is one cursor that waits.
type waiter struct {
	filter *filter
	ready  chan struct{} // closed when it is woken
	woken  bool
	to     journal.Position // up to where nothing was wanted, if it is woken
}

// places are the sets in which a waiter is, and the names under which they are.
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

// wake lets a waiter go on behind a position.
func (n *waiter) wake(to journal.Position) {
	if !n.woken {
		n.woken, n.to = true, to
		close(n.ready)
	}
}

// publish wakes those that want an event, which follows on all that they were not woken for.
func (w *waiting) publish(e *service.Event) {
	for _, set := range []map[*waiter]struct{}{w.byKey[e.Key], w.byType[e.Type]} {
		for n := range set {
			if n.filter.wants(&e.Event) {
				n.wake(e.Position - 1)
			}
		}
	}
}

// wakeAll wakes all, as nobody knows what they may want behind a position.
func (w *waiting) wakeAll(to journal.Position) {
	for _, sets := range []map[string]map[*waiter]struct{}{w.byKey, w.byType} {
		for _, set := range sets {
			for n := range set {
				n.wake(to)
			}
		}
	}
}

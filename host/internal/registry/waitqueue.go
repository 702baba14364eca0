package registry

import (
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// waitQueue is where requests wait for a service's engine, in order. Their number and size are bounded, and so is
// the wait of each. Its owner's lock guards it.
type waitQueue struct {
	waiting []*waiter
	bytes   int64
}

// waiter is a waiting request. When it is refused, by anyone, it drops the request's data, which from then
// on is not counted.
type waiter struct {
	size   int64
	claim  *service.Claim
	timer  *time.Timer
	refuse func(error) // answers it

	mu    sync.Mutex         // guards enter
	enter func(*build) error // gives it and its data to an engine; nil: it was refused
}

// Drop implements service.Dropper.
func (w *waiter) Drop() {
	w.timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.enter = nil
}

// give gives the request to an engine, unless it was refused.
func (w *waiter) give(into *build) error {
	w.mu.Lock()
	enter := w.enter
	w.mu.Unlock()
	if enter == nil {
		return nil // then the one who refused it answers it
	}
	return enter(into)
}

// restart is the RetryAfter of a request that has waited for its service too long, if nothing better is
// known.
const restart = time.Second

// fits removes requests that were refused meanwhile, and reports whether another one of size bytes fits in.
func (q *waitQueue) fits(size int64, l service.Limits, shards int) bool {
	if limit := l.MailboxCommands * max(1, shards); len(q.waiting) >= limit || q.bytes+size > q.maxBytes(l, shards) {
		kept := q.waiting[:0]
		for _, w := range q.waiting {
			if w.claim.Refused() {
				q.bytes -= w.size
				continue
			}
			kept = append(kept, w)
		}
		clear(q.waiting[len(kept):])
		q.waiting = kept
		return len(q.waiting) < limit && (len(q.waiting) == 0 || q.bytes+size <= q.maxBytes(l, shards))
	}
	return true
}

func (q *waitQueue) maxBytes(l service.Limits, shards int) int64 {
	return l.MailboxBytes * int64(max(1, shards))
}

// add adds a request, which is refused when it has waited for patience.
func (q *waitQueue) add(w *waiter, patience time.Duration, late func() error) {
	w.timer = time.AfterFunc(patience, func() {
		if w.claim.Refuse() {
			w.refuse(late())
		}
	})
	w.claim.Hold(w)
	q.bytes += w.size
	q.waiting = append(q.waiting, w)
}

// flush removes all requests: it gives them to the engine or, if that is nil, refuses them. It returns
// functions that answer those refused; call them after the owner's lock has been released.
func (q *waitQueue) flush(into *build, why func() error) (answers []func()) {
	for _, w := range q.waiting {
		if !w.timer.Stop() {
			continue // its timer refuses it now
		}
		var err error
		if into != nil {
			err = w.give(into)
		} else if err = why(); !w.claim.Refuse() {
			continue // its sender has refused it
		}
		if err != nil {
			answers = append(answers, func() { w.refuse(err) })
		}
	}
	*q = waitQueue{}
	return answers
}

package registry

import (
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// room is where requests wait for a service's engine, in order. Their number and size are bounded, and so is
// the wait of each. Its owner's lock guards it.
type room struct {
	waiting []*visitor
	bytes   int64
}

// visitor is a waiting request. When it is refused, by anyone, it drops the request's data, which from then
// on is not counted.
type visitor struct {
	size   int64
	claim  *service.Claim
	timer  *time.Timer
	refuse func(error) // answers it

	mu    sync.Mutex         // guards enter
	enter func(*build) error // gives it and its data to an engine; nil: it was refused
}

// Drop implements service.Dropper.
func (v *visitor) Drop() {
	v.timer.Stop()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.enter = nil
}

// leave gives the request to an engine, unless it was refused.
func (v *visitor) leave(into *build) error {
	v.mu.Lock()
	enter := v.enter
	v.mu.Unlock()
	if enter == nil {
		return nil // then the one who refused it answers it
	}
	return enter(into)
}

// restart is the RetryAfter of a request that has waited for its service too long, if nothing better is
// known.
const restart = time.Second

// enough removes requests that were refused meanwhile, and reports whether another one of size bytes fits in.
func (r *room) enough(size int64, l service.Limits, shards int) bool {
	if limit := l.MailboxCommands * max(1, shards); len(r.waiting) >= limit || r.bytes+size > r.maxBytes(l, shards) {
		kept := r.waiting[:0]
		for _, v := range r.waiting {
			if v.claim.Refused() {
				r.bytes -= v.size
				continue
			}
			kept = append(kept, v)
		}
		clear(r.waiting[len(kept):])
		r.waiting = kept
		return len(r.waiting) < limit && (len(r.waiting) == 0 || r.bytes+size <= r.maxBytes(l, shards))
	}
	return true
}

func (r *room) maxBytes(l service.Limits, shards int) int64 {
	return l.MailboxBytes * int64(max(1, shards))
}

// add adds a request, which is refused when it has waited for patience.
func (r *room) add(v *visitor, patience time.Duration, late func() error) {
	v.timer = time.AfterFunc(patience, func() {
		if v.claim.Refuse() {
			v.refuse(late())
		}
	})
	v.claim.Hold(v)
	r.bytes += v.size
	r.waiting = append(r.waiting, v)
}

// empty removes all requests: it gives them to the engine or, if that is nil, refuses them. It returns
// functions that answer those refused; call them after the owner's lock has been released.
func (r *room) empty(into *build, why func() error) (answers []func()) {
	for _, v := range r.waiting {
		if !v.timer.Stop() {
			continue // its timer refuses it now
		}
		var err error
		if into != nil {
			err = v.leave(into)
		} else if err = why(); !v.claim.Refuse() {
			continue // its sender has refused it
		}
		if err != nil {
			answers = append(answers, func() { v.refuse(err) })
		}
	}
	*r = room{}
	return answers
}

package registry

import (
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// room is where requests wait for a service's engine, in order. It is bounded by
// number and size, and each request by its time. Its owner's lock guards it.
type room struct {
	waiting []*visitor
	bytes   int64
}

// visitor is a request in the room. When it is refused it lets go of the request's data,
// whoever has refused it, as nobody counts that any more.
type visitor struct {
	size   int64
	claim  *service.Claim
	timer  *time.Timer
	refuse func(error) // answers it

	mu    sync.Mutex         // guards enter
	enter func(*build) error // hands it, with its data, to an engine; nil: it was refused
}

// Drop implements service.Dropper.
func (v *visitor) Drop() {
	v.timer.Stop()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.enter = nil
}

// leave hands the request to an engine, unless it was refused.
func (v *visitor) leave(into *build) error {
	v.mu.Lock()
	enter := v.enter
	v.mu.Unlock()
	if enter == nil {
		return nil // and so somebody else answers
	}
	return enter(into)
}

// restart is when a request that has waited for its service in vain may come again, if
// nothing better is known.
const restart = time.Second

// enough lets those go that have been refused meanwhile and reports whether another
// request of size bytes fits in.
func (r *room) enough(size int64, l service.Limits, shards int) bool {
	if most := l.MailboxCommands * max(1, shards); len(r.waiting) >= most || r.bytes+size > r.most(l, shards) {
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
		return len(r.waiting) < most && (len(r.waiting) == 0 || r.bytes+size <= r.most(l, shards))
	}
	return true
}

func (r *room) most(l service.Limits, shards int) int64 {
	return l.MailboxBytes * int64(max(1, shards))
}

// add lets a request in, which is refused when it has waited so long.
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

// empty has all leave the room: into the engine, or, if that is nil, refused for a
// reason. Those who are refused are answered by the functions that it returns, when its
// owner's lock is not held any more.
func (r *room) empty(into *build, why func() error) (answers []func()) {
	for _, v := range r.waiting {
		if !v.timer.Stop() {
			continue // it is being refused
		}
		var err error
		if into != nil {
			err = v.leave(into)
		} else if err = why(); !v.claim.Refuse() {
			continue // its sender has taken it back
		}
		if err != nil {
			answers = append(answers, func() { v.refuse(err) })
		}
	}
	*r = room{}
	return answers
}

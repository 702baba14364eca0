package compile

import (
	"context"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// turns lets one at a time compile the same binary: who comes second finds it done.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed when the turn ends
}

// take waits for the turn; false if ctx ends first.
func (t *turns) take(ctx context.Context, name string) (end func(), ok bool) {
	for {
		t.mu.Lock()
		other, busy := t.taken[name]
		if !busy {
			if t.taken == nil {
				t.taken = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			t.taken[name] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.taken, name)
				t.mu.Unlock()
				close(mine)
			}, true
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// slots bound how many modules are compiled at once. Small ones have slots of their
// own, so that they never wait for a large one, and take one of the others if that is free.
type slots struct {
	small, large chan struct{}
	smallBytes   int
}

func newSlots(each, smallBytes int) *slots {
	return &slots{small: make(chan struct{}, each), large: make(chan struct{}, each), smallBytes: smallBytes}
}

// take waits for a slot for a module of size bytes; false if ctx ends first. One that
// is free is taken also then: who need not wait is not told that he waited too long.
func (s *slots) take(ctx context.Context, size int) (release func(), ok bool) {
	small := s.small
	if size > s.smallBytes {
		small = nil // for which nobody ever waits
	}
	select {
	case small <- struct{}{}:
		return func() { <-s.small }, true
	default:
	}
	select {
	case s.large <- struct{}{}:
		return func() { <-s.large }, true
	default:
	}
	select {
	case small <- struct{}{}:
		return func() { <-s.small }, true
	case s.large <- struct{}{}:
		return func() { <-s.large }, true
	case <-ctx.Done():
		return nil, false
	}
}

// taken is how many slots are.
func (s *slots) taken() int { return len(s.small) + len(s.large) }

// retryCompile is when to try again after others compiled for too long.
const retryCompile = time.Second

// waitedTooLong says what became of one whose limited context has ended while others
// compiled; ctx is its caller's.
func (s *slots) waitedTooLong(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &service.Error{Kind: service.KindOf(err), Message: "the caller gave up while other modules were " +
			"compiled", Err: err}
	}
	return &service.Error{Kind: service.KindOverloaded, Message: "other modules are being compiled; try again",
		RetryAfter: retryCompile,
		Resource:   "compilations", Used: int64(s.taken()), Limit: int64(cap(s.small) + cap(s.large))}
}

// compileTime bounds the processor time for compiling a module of size bytes: by its
// size, so that one that is made to take long ends the sooner the smaller it is, and by
// the limit of the service.
func (c *Compiler) compileTime(l service.Limits, size int) time.Duration {
	bySize := c.options.Base + time.Duration(float64(c.options.PerMiB)*float64(size)/(1<<20))
	return min(l.CompileTime, bySize)
}

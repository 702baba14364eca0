package compile

import (
	"context"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// turns make calls that compile the same binary wait for each other: the second one finds the result.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed at the end of the turn
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

// slots bound the number of concurrent compilations. Small modules have slots of their own, so that they
// never wait for a large one. They also use a free slot of the others.
type slots struct {
	small, large chan struct{}
	smallBytes   int
}

func newSlots(each, smallBytes int) *slots {
	return &slots{small: make(chan struct{}, each), large: make(chan struct{}, each), smallBytes: smallBytes}
}

// take waits for a slot for a module of size bytes; false if ctx ends first. A free slot is taken even if ctx
// has ended: a call that need not wait should not be told that it waited too long.
func (s *slots) take(ctx context.Context, size int) (release func(), ok bool) {
	small := s.small
	if size > s.smallBytes {
		small = nil // nobody ever waits for it
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

// taken is the number of slots in use.
func (s *slots) taken() int { return len(s.small) + len(s.large) }

// retryCompile is the RetryAfter of a call for which others compiled too long.
const retryCompile = time.Second

// waitedTooLong returns the error of a call whose limited context ended while others compiled. ctx is its
// caller's context.
func (s *slots) waitedTooLong(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &service.Error{Kind: service.KindOf(err), Message: "the caller gave up while other modules were " +
			"compiled", Err: err}
	}
	return &service.Error{Kind: service.KindOverloaded, Message: "other modules are being compiled; try again",
		RetryAfter: retryCompile,
		Resource:   "compilations", Used: int64(s.taken()), Limit: int64(cap(s.small) + cap(s.large))}
}

// compileTime is the maximum processor time for compiling a module of size bytes. It depends on the size, so
// that a small module that is made to compile slowly is ended soon, and on the service's limit.
func (c *Compiler) compileTime(l service.Limits, size int) time.Duration {
	bySize := c.options.Base + time.Duration(float64(c.options.PerMiB)*float64(size)/(1<<20))
	return min(l.CompileTime, bySize)
}

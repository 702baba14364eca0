package lifecycle

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff computes how long to wait before a failed operation is retried. The waits double from
// First to Max. Each is shortened at random by up to a quarter, so that callers that failed
// together do not retry together. It has no state: one Backoff may be used concurrently.
type Backoff struct {
	First time.Duration // wait after the first failure; above 0
	Max   time.Duration // upper bound of the waits; at least First
}

// Wait returns the wait after the given number of consecutive failures; took is the duration of the
// last attempt. The wait is not shorter than took (less the random part), so that an operation that
// fails slowly does not run nearly all the time. It never exceeds Max.
func (b Backoff) Wait(failures int, took time.Duration) time.Duration {
	wait := b.First
	for n := 1; n < failures && wait < b.Max; n++ {
		wait *= 2
	}
	wait = min(max(wait, took), b.Max)
	return wait - rand.N(wait/4+1)
}

// Asked is Wait for a failure that named a wait itself, for example with Retry-After (0: it named
// none). The result is never shorter than asked, and up to a quarter longer, because other clients
// may have been told the same wait. It may exceed Max.
func (b Backoff) Asked(failures int, asked time.Duration) time.Duration {
	wait := b.Wait(failures, 0)
	if asked < wait {
		return wait
	}
	return asked + rand.N(asked/4+1)
}

// Sleep waits for d and returns true, or returns false as soon as ctx ends.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

package lifecycle

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff says how long to wait before something that failed is tried again. The
// waits double from First to Max. Each is shortened by up to a quarter at random, so
// that many that failed together do not try again together.
type Backoff struct {
	First time.Duration // after the first failure; above 0
	Max   time.Duration // the longest wait; at least First
}

// Wait is the wait after so many failures in a row, of which the last took took. It
// is at least as long as that, as what takes long to fail would otherwise be tried
// nearly all the time, but no longer than Max.
func (b Backoff) Wait(failures int, took time.Duration) time.Duration {
	wait := b.First
	for n := 1; n < failures && wait < b.Max; n++ {
		wait *= 2
	}
	wait = min(max(wait, took), b.Max)
	return wait - rand.N(wait/4+1)
}

// Asked is the wait after so many failures in a row, the last of which asked for a wait, such as with Retry-After (0: it
// did not). It is never shorter than that, but up to a quarter longer, as others were asked for the same.
func (b Backoff) Asked(failures int, asked time.Duration) time.Duration {
	wait := b.Wait(failures, 0)
	if asked < wait {
		return wait
	}
	return asked + rand.N(asked/4+1)
}

// Sleep waits; false if ctx ended first.
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

package lifecycle

import (
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

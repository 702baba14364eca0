package registry

import "context"

// lock is a mutex that can be taken within a context.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

// Lock waits without a bound.
func (l lock) Lock() { l <- struct{}{} }

// LockWithin waits until ctx ends, and then returns its error. It takes a free lock even if ctx has ended.
func (l lock) LockWithin(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	default:
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lock) Unlock() { <-l }

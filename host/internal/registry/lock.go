package registry

import "context"

// lock is a mutex for which can be waited with a context.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

// Lock waits however long it takes.
func (l lock) Lock() { l <- struct{}{} }

// LockWithin waits until ctx ends, whose error it returns then. What is free it takes
// also if ctx has ended.
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

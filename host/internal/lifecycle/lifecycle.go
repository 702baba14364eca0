// Package lifecycle is the one contract by which every component of the host starts and stops:
//
//   - Start returns when the component is set up, not when its work is done.
//   - Stop may be called any number of times, from any goroutine, also before or
//     instead of Start. It returns when the component's goroutines have ended.
//   - A stopped component is never started again.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Errors of [Life.Start].
var (
	// ErrStarted is returned by the second Start of the same thing.
	ErrStarted = errors.New("already started")
	// ErrStopped is returned by a Start after Stop.
	ErrStopped = errors.New("already stopped")
)

// Life keeps the contract for the type that embeds or holds it. The zero value is ready. All
// methods are safe for concurrent use.
type Life struct {
	goroutines sync.WaitGroup

	mu      sync.Mutex // guards all below; held while setUp runs, and never while other code of the owner runs
	started bool
	stopped bool
	done    chan struct{} // made by the first Stop, closed when its tearDown has returned
	err     error         // result of tearDown; read only after done is closed
}

// Start runs setUp once. If setUp fails, Start returns its error and the component counts as
// stopped, so a setUp that fails has to release everything itself. A concurrent Stop waits until
// Start has returned, so setUp must not call it. Later calls return [ErrStarted] or [ErrStopped].
func (l *Life) Start(setUp func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stopped:
		return ErrStopped
	case l.started:
		return ErrStarted
	}
	l.started = true
	err := setUp()
	if err != nil {
		l.stopped, l.done = true, make(chan struct{})
		close(l.done)
	}
	return err
}

// Go runs f in a goroutine that [Life.Wait] waits for. Only setUp of [Life.Start], and goroutines
// that Go started, may call it.
func (l *Life) Go(f func()) { l.goroutines.Go(f) }

// Wait returns nil when every goroutine started by [Life.Go] has ended. If ctx ends first, it
// returns the cause.
func (l *Life) Wait(ctx context.Context) error {
	gone := make(chan struct{})
	// sync.WaitGroup.Wait cannot be cancelled, so it gets its own goroutine, which ends with
	// the last of the others.
	go func() { l.goroutines.Wait(); close(gone) }()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		select {
		case <-gone: // both are ready: success counts
			return nil
		default:
			return context.Cause(ctx)
		}
	}
}

// Stop runs tearDown when it is called for the first time, and returns its error. Later and
// concurrent calls return the same error once the first call is done, or the cause when their own
// ctx ends. started tells tearDown whether Start was called.
func (l *Life) Stop(ctx context.Context, tearDown func(ctx context.Context, started bool) error) error {
	l.mu.Lock()
	first := !l.stopped
	if first {
		l.stopped, l.done = true, make(chan struct{})
	}
	started, done := l.started, l.done
	l.mu.Unlock()
	if first {
		l.err = tearDown(ctx, started)
		close(done)
		return l.err
	}
	select {
	case <-done:
		return l.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Stage is one step of a shutdown.
type Stage struct {
	Name string // for errors, as in "stop intake"
	Run  func(ctx context.Context) error
}

// Stop runs the stages one after the other. After a stage has failed, the later ones still run,
// because what they release must not leak. All errors are joined, each prefixed with its stage's
// name.
func Stop(ctx context.Context, stages ...Stage) error {
	var errs []error
	for _, s := range stages {
		if err := s.Run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

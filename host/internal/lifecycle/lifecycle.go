// Package lifecycle is the one contract for starting and stopping of everything
// in the host that runs:
//
//   - Start returns when what was started is set up, not when it is done.
//   - Stop may be called any number of times, from any goroutine, also before or
//     instead of Start; it returns when the goroutines are gone.
//   - What has been stopped is not started again.
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

// Life keeps the contract for the type that embeds or holds it. The zero value
// is ready. All methods are safe for concurrent use.
type Life struct {
	goroutines sync.WaitGroup

	mu      sync.Mutex // guards all below; not held while anything of the owner runs but its set-up
	started bool
	stopped bool
	done    chan struct{} // of the first Stop; closed when it is through
	err     error         // its result; read only after done
}

// Start runs setUp once. If that fails its error is returned and the thing counts
// as stopped, so setUp has to leave nothing behind then. Stop waits for a Start
// under way, so setUp must not call it.
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

// Go runs f in a goroutine that [Life.Wait] waits for. It is for setUp of
// [Life.Start] and for goroutines that Go started.
func (l *Life) Go(f func()) { l.goroutines.Go(f) }

// Wait returns when every goroutine that [Life.Go] started is gone, or with the
// cause of ctx's end.
func (l *Life) Wait(ctx context.Context) error {
	gone := make(chan struct{})
	// Without this one goroutine a wait could not be given up. It ends with the last of the others.
	go func() { l.goroutines.Wait(); close(gone) }()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		select {
		case <-gone: // both: being done counts
			return nil
		default:
			return context.Cause(ctx)
		}
	}
}

// Stop runs tearDown, the first time it is called. Later and concurrent calls
// wait for the first one, each no longer than its own ctx, and return its error.
// tearDown is told whether there was a Start.
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

// Stage is one step of stopping.
type Stage struct {
	Name string // for errors, as in "stop intake"
	Run  func(ctx context.Context) error
}

// Stop runs the stages one after the other. A stage that fails does not keep the
// later ones from running, as what they release must not leak; all errors are
// joined, each with its stage's name.
func Stop(ctx context.Context, stages ...Stage) error {
	var errs []error
	for _, s := range stages {
		if err := s.Run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Package lifecycle defines one contract for every component: whatever starts goroutines or processes that go
// on after the call.
//
//   - A component is started by its constructor and ended by Close, or it is set up by its constructor, started by
//     Start and ended by Stop. Start returns when the component is set up, not when its work is done.
//   - Close and Stop have one meaning. They may be called any number of times, from any goroutine, also before or
//     instead of Start. They return when the component's goroutines and processes have ended. All calls that wait
//     for that return the same error.
//   - When their context ends, they cancel what can be canceled. If other work goes on, such as a write to disk, the
//     call returns an error. That work ends on its own, and a later call may wait for it. Close without a context is
//     bounded anyway.
//   - A component that has ended is never started again.
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
	done    chan struct{} // made by the first Stop or Close, closed at the end of tearDown or release
	err     error         // result of tearDown or release; read only after done is closed
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

// Go runs f in a goroutine that [Life.Wait] waits for. Only a constructor, setUp of [Life.Start], a call within
// [Life.Enter], and goroutines that Go started, may call it.
func (l *Life) Go(f func()) { l.goroutines.Go(f) }

// Enter begins a call that [Life.Wait] waits for, until leave. It returns false if the component is ending: then
// nothing has begun.
func (l *Life) Enter() (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return nil, false
	}
	l.goroutines.Add(1)
	return l.goroutines.Done, true
}

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

// ErrUnfinished is the error of a [Life.Close] whose context has ended first; the cause is joined to it.
var ErrUnfinished = errors.New("it has not ended yet")

// Close ends what a constructor has started. The first call runs end, which has all goroutines end soon. When they
// have ended, and calls within [Life.Enter] too, release runs once; Close returns its error. If ctx ends earlier, Close
// returns [ErrUnfinished], and the rest goes on; a later call waits for it again. end and release may be nil.
func (l *Life) Close(ctx context.Context, end func(), release func() error) error {
	l.mu.Lock()
	first := !l.stopped
	if first {
		l.stopped, l.done = true, make(chan struct{})
	}
	done := l.done
	l.mu.Unlock()
	if first {
		if end != nil {
			end()
		}
		go func() { // ends with the goroutines that it waits for
			defer close(done)
			l.goroutines.Wait()
			if release != nil {
				l.err = release()
			}
		}()
	}
	select {
	case <-done:
		return l.err
	default:
	}
	select {
	case <-done:
		return l.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnfinished, context.Cause(ctx))
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

package lifecycle

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStartAndStop(t *testing.T) {
	var l Life
	quit := make(chan struct{})
	var running atomic.Bool
	if err := l.Start(func() error {
		running.Store(true)
		l.Go(func() { <-quit; running.Store(false) })
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(func() error { t.Error("set up twice"); return nil }); !errors.Is(err, ErrStarted) {
		t.Fatalf("second start: %v", err)
	}
	tearDowns := 0
	stop := func() error {
		return l.Stop(t.Context(), func(ctx context.Context, started bool) error {
			tearDowns++
			if !started {
				t.Error("told that nothing was started")
			}
			close(quit)
			return l.Wait(ctx)
		})
	}
	for range 3 {
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	if running.Load() || tearDowns != 1 {
		t.Fatalf("running %v after %d tear-downs", running.Load(), tearDowns)
	}
	if err := l.Start(func() error { return nil }); !errors.Is(err, ErrStopped) {
		t.Fatalf("start after stop: %v", err)
	}
}

func TestStopWithoutStart(t *testing.T) {
	var l Life
	err := l.Stop(t.Context(), func(ctx context.Context, started bool) error {
		if started {
			t.Error("told that something was started")
		}
		return l.Wait(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFailedStartIsStopped(t *testing.T) {
	var l Life
	bad := errors.New("no such thing")
	if err := l.Start(func() error { return bad }); err != bad {
		t.Fatalf("got %v", err)
	}
	if err := l.Start(func() error { return nil }); !errors.Is(err, ErrStopped) {
		t.Fatalf("second start: %v", err)
	}
	if err := l.Stop(t.Context(), func(context.Context, bool) error { t.Error("torn down"); return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestConcurrentStopsShareOneResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Life
		want := errors.New("it would not go")
		gate := make(chan struct{})
		var waiters sync.WaitGroup
		for range 4 {
			waiters.Go(func() {
				err := l.Stop(t.Context(), func(context.Context, bool) error { <-gate; return want })
				if err != want {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Stop(gone, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("a stop without patience: %v", err)
		}
		close(gate)
		waiters.Wait()
	})
}

func TestWaitGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Life
		quit := make(chan struct{})
		l.Go(func() { <-quit })
		cause := errors.New("out of patience")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if err := l.Wait(ctx); err != cause {
			t.Errorf("got %v", err)
		}
		close(quit)
		synctest.Wait()
		if err := l.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestStagesAllRun(t *testing.T) {
	var order []string
	stage := func(name string, err error) Stage {
		return Stage{name, func(context.Context) error { order = append(order, name); return err }}
	}
	bad := errors.New("stuck")
	err := Stop(t.Context(), stage("intake", nil), stage("mailboxes", bad), stage("guests", nil))
	if got := strings.Join(order, " "); got != "intake mailboxes guests" {
		t.Errorf("ran %s", got)
	}
	if !errors.Is(err, bad) || !strings.Contains(err.Error(), "mailboxes: stuck") {
		t.Errorf("got %v", err)
	}
}

// Close waits for goroutines and calls until its context ends, and releases once.
func TestCloseMayBeCalledAgainToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Life
		quit := make(chan struct{})
		l.Go(func() { <-quit })
		leave, ok := l.Enter()
		if !ok {
			t.Fatal("a call cannot begin")
		}
		want := errors.New("it would not go")
		ends, releases := 0, 0
		closes := func(ctx context.Context) error {
			return l.Close(ctx, func() { ends++ }, func() error { releases++; return want })
		}
		hasty, cancel := context.WithCancel(t.Context())
		cancel()
		for range 2 {
			if err := closes(hasty); !errors.Is(err, ErrUnfinished) || !errors.Is(err, context.Canceled) {
				t.Errorf("without patience: %v", err)
			}
		}
		if _, ok := l.Enter(); ok {
			t.Error("a call begins although everything ends")
		}
		close(quit)
		synctest.Wait()
		if releases != 0 {
			t.Error("it is released while a call goes on")
		}
		leave()
		for range 2 {
			if err := closes(t.Context()); err != want {
				t.Errorf("got %v", err)
			}
		}
		if err := closes(hasty); err != want {
			t.Errorf("of what has ended: %v", err)
		}
		if ends != 1 || releases != 1 {
			t.Errorf("ended %d times, released %d times", ends, releases)
		}
	})
}

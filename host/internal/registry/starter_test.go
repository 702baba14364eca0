package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/catalog"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a starter whose attempts take as long as the test says.
type bench struct {
	*starter
	takes map[service.Name]time.Duration
	fails map[service.Name]error
	log   []string // the time when each attempt began
	since time.Time
}

func newBench(t *testing.T, places int) *bench {
	b := &bench{takes: map[service.Name]time.Duration{}, fails: map[service.Name]error{}, since: time.Now()}
	o := Options{Logger: slog.New(slog.DiscardHandler), StartPlaces: places,
		Retry: lifecycle.Backoff{First: time.Second, Max: 8 * time.Second}, RareRetry: time.Hour}
	b.starter = newStarter(o, func(ctx context.Context, x *start) error {
		name := x.spec.Service
		b.starter.mu.Lock()
		b.log = append(b.log, fmt.Sprint(time.Since(b.since).Round(100*time.Millisecond), " ", name))
		takes, fails := b.takes[name], b.fails[name]
		b.starter.mu.Unlock()
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return ctx.Err()
		}
		if fails == nil {
			x.svc.openGate(&build{spec: x.spec}, nil)
		}
		return fails
	})
	t.Cleanup(b.close)
	return b
}

// one is a recorded service whose start is expected to take one time, and takes another.
func (b *bench) one(name service.Name, expected, takes time.Duration) *start {
	b.takes[name] = takes
	spec := service.Spec{Service: name}.WithDefaults()
	return &start{svc: newService(spec, catalog.Facts{}, budget.New(nil), nil, time.Minute), spec: spec,
		expected: expected}
}

func (b *bench) began() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.log, ", ")
}

// Quick services start first, however many slow ones there are, and the number of slow ones is bounded.
func TestQuickServicesStartFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 2)
		b.begin([]*start{
			b.one("slow1", 8*time.Second, 8*time.Second), b.one("quick3", 30*time.Millisecond, 200*time.Millisecond),
			b.one("slow2", 9*time.Second, 9*time.Second),
			b.one("slow3", 10*time.Second, 10*time.Second), b.one("quick1", 10*time.Millisecond, 200*time.Millisecond),
			b.one("quick2", 20*time.Millisecond, 200*time.Millisecond),
		})
		synctest.Wait()
		select {
		case <-b.tried:
			t.Error("all are tried at the beginning")
		default:
		}
		<-b.tried
		if took := time.Since(b.since); took != 18*time.Second+200*time.Millisecond {
			t.Errorf("all were tried after %v", took)
		}
		// The slow ones begin when no quick one waits for a place.
		if want := "0s quick1, 0s quick2, 200ms quick3, 200ms slow1, 200ms slow2, 8.2s slow3"; sorted(
			b.began()) != sorted(want) {
			t.Errorf("began %s, want %s", b.began(), want)
		}
	})
}

func sorted(list string) string {
	all := strings.Split(list, ", ")
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// A start that was expected to be quick and is not gives its place back, and goes on.
func TestSlowStartsGiveTheirPlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 2)
		var all []*start
		for i := range 20 {
			all = append(all, b.one(service.Name(fmt.Sprintf("liar%02d", i)), time.Millisecond, time.Minute))
		}
		all = append(all, b.one("quick", 2*time.Millisecond, 10*time.Millisecond))
		b.begin(all)
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if want := "0s liar00, 0s liar01, 1s liar02, 1s liar03"; sorted(b.began()) != want {
			t.Errorf("after a second %s, want %s", b.began(), want)
		}
		time.Sleep(time.Hour)
		<-b.tried
		// However many slow starts there are, at most overtime of them go on beside those in places.
		maximum, running := 0, 0
		type change struct {
			at time.Duration
			by int
		}
		var changes []change
		for _, line := range strings.Split(b.began(), ", ") {
			at, name, _ := strings.Cut(line, " ")
			began, err := time.ParseDuration(at)
			if err != nil {
				t.Fatal(err)
			}
			changes = append(changes, change{began, 1}, change{began + b.takes[service.Name(name)], -1})
		}
		slices.SortFunc(changes, func(a, b change) int { return int(a.at-b.at)*2 + a.by - b.by })
		for _, c := range changes {
			running += c.by
			maximum = max(maximum, running)
		}
		if bound := 2 + overtime*2; maximum > bound || len(changes) != 42 {
			t.Errorf("%d at a time, %d in all; the bound is %d", maximum, len(changes)/2, bound)
		}
	})
}

// A failed start is tried again after growing waits; if another attempt is not expected to help, rarely.
// Requests wait during an attempt, and are refused between two.
func TestFailedStartsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 2)
		flaky, bad := b.one("flaky", 0, 100*time.Millisecond), b.one("bad", 0, 100*time.Millisecond)
		b.fails["flaky"] = service.Errorf(service.KindInternal, "no room")
		b.fails["bad"] = service.Errorf(service.KindBadModule, "it traps")
		b.begin([]*start{flaky, bad})
		command := func(svc *Service) error {
			refused := make(chan error, 1)
			var claim *service.Claim
			if err := svc.pass(time.Time{}, &claim, 0, func(*build) error { refused <- nil; return nil },
				func(err error) {
					svc.Status() // an answer may ask for the status, and must not delay starts
					b.began()
					refused <- err
				}); err != nil {
				return err
			}
			return <-refused
		}
		for n := 1; n <= 5; n++ {
			if err := command(flaky.svc); service.KindOf(err) != service.KindUnavailable ||
				!strings.Contains(err.Error(), "no room") {
				t.Errorf("a command that waited for attempt %d: %v", n, err)
			}
			st := flaky.svc.Status()
			bound := min(time.Second<<(n-1), 8*time.Second)
			if wait := time.Until(st.NextAttempt); st.State != service.StateFailed || st.Failed != n || wait > bound ||
				wait < bound*3/4 || st.Problem != "internal: no room" {
				t.Errorf("after attempt %d: %+v, the next in %v, want about %v", n, st.Attempts, wait, bound)
			}
			var refusal *service.Error
			if err := command(flaky.svc); !errors.As(err, &refusal) ||
				refusal.RetryAfter < min(time.Until(st.NextAttempt), restart) {
				t.Errorf("a command between two attempts: %v", err)
			}
			if n == 4 {
				b.mu.Lock()
				delete(b.fails, "flaky")
				b.mu.Unlock()
			}
			time.Sleep(time.Until(st.NextAttempt))
			synctest.Wait()
			if st := flaky.svc.Status(); st.State != service.StateStarting || st.Failed != n ||
				!st.NextAttempt.IsZero() {
				t.Errorf("during attempt %d: %s %+v", n+1, st.State, st.Attempts)
			}
			if n == 4 {
				break
			}
		}
		if err := command(flaky.svc); err != nil {
			t.Errorf("a command that waited for the attempt that succeeds: %v", err)
		}
		flaky.svc.mu.Lock()
		state, failed := flaky.svc.state, flaky.svc.failed
		flaky.svc.mu.Unlock()
		if state != service.StateRunning || failed != 0 {
			t.Errorf("at last it is %s, with %d failures", state, failed)
		}
		if st := bad.svc.Status(); st.Failed != 1 || time.Until(st.NextAttempt) < 40*time.Minute ||
			st.State != service.StateFailed {
			t.Errorf("a bad module: %+v", st.Attempts)
		}
	})
}

// A deployment replaces the attempts immediately, and Close does not wait for them.
func TestAttemptsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		runs, waits := b.one("runs", 0, time.Hour), b.one("waits", time.Millisecond, time.Hour)
		slow := b.one("slow", time.Minute, time.Hour)
		b.begin([]*start{runs, waits, slow})
		synctest.Wait()
		b.drop(runs.svc)
		b.drop(waits.svc)
		synctest.Wait()
		if want := "0s runs, 0s slow"; sorted(b.began()) != want {
			t.Errorf("began %s, want %s", b.began(), want)
		}
		if runs.svc.Status().Failed > 0 {
			t.Error("an attempt that was dropped counts as failed")
		}
		b.close()
		if took := time.Since(b.since); took > 0 {
			t.Errorf("close took %v", took)
		}
		<-b.tried
	})
}

// A service whose log has changed is tried immediately, and once more if an attempt was in progress.
func TestAnAttemptIsHurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		one := b.one("one", 0, 200*time.Millisecond)
		b.fails["one"] = service.Errorf(service.KindConflicting, "does not fit")
		b.begin([]*start{one})
		time.Sleep(10 * time.Second)
		b.hurry(one.svc)
		synctest.Wait()
		b.hurry(one.svc)
		time.Sleep(10 * time.Second)
		if want := "0s one, 10s one, 10.2s one"; b.began() != want {
			t.Errorf("began %s, want %s", b.began(), want)
		}
		b.mu.Lock()
		delete(b.fails, "one")
		b.mu.Unlock()
		b.hurry(one.svc)
		b.hurry(one.svc)
		time.Sleep(2 * time.Hour)
		if want := "0s one, 10s one, 10.2s one, 20s one"; b.began() != want {
			t.Errorf("began %s, want %s", b.began(), want)
		}
	})
}

// After dropping the attempts one can wait until the one in progress has freed what it held.
func TestADroppedAttemptIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		o := Options{Logger: slog.New(slog.DiscardHandler), StartPlaces: 1}
		st := newStarter(o, func(ctx context.Context, _ *start) error {
			<-ctx.Done()
			<-end
			return ctx.Err()
		})
		defer st.close()
		one := func(name service.Name) *start {
			spec := service.Spec{Service: name}.WithDefaults()
			return &start{svc: newService(spec, catalog.Facts{}, budget.New(nil), nil, time.Minute), spec: spec}
		}
		runs, waits := one("a"), one("b")
		st.begin([]*start{runs, waits})
		synctest.Wait()
		<-st.drop(waits.svc)
		<-st.drop(one("c").svc)
		ended := st.drop(runs.svc)
		synctest.Wait()
		select {
		case <-ended:
			t.Error("an attempt that goes on has ended")
		default:
		}
		close(end)
		<-ended
	})
}

// A service that cannot start because a resource of the host is exhausted says so.
func TestAStartBeyondTheQuota(t *testing.T) {
	svc := newService(service.Spec{Service: "bank"}.WithDefaults(), catalog.Facts{}, budget.New(nil), nil, time.Minute)
	full := &service.Error{Kind: service.KindQuota, Resource: "sandboxes", Used: 10, Limit: 10,
		Message: "sandboxes are used up"}
	svc.setFailed(fmt.Errorf("build: %w", full), 1, time.Now().Add(time.Hour))
	var claim *service.Claim
	err := svc.pass(time.Time{}, &claim, 0, nil, nil)
	var own *service.Error
	if !errors.As(err, &own) || own.Kind != service.KindQuota || own.Resource != "sandboxes" || own.Used != 10 ||
		own.Limit != 10 || own.Service != "bank" || full.Service != "" {
		t.Errorf("a command gets %+v", err)
	}
}

// Waiting for another deployment ends with the context.
func TestWaitingForADeploymentEnds(t *testing.T) {
	svc := newService(service.Spec{Service: "bank"}.WithDefaults(), catalog.Facts{}, budget.New(nil), nil, time.Minute)
	if err := svc.lockDeploying(t.Context(), "deploy", "bank"); err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := svc.lockDeploying(gone, "deploy", "bank"); service.KindOf(err) != service.KindCanceled {
		t.Errorf("whose caller has gone: %v", err)
	}
	svc.deploying.Unlock()
	if err := svc.lockDeploying(t.Context(), "delete", "bank"); err != nil {
		t.Error(err)
	}
}

// The wait of each request is bounded in time, and that of all in number and bytes.
func TestTheQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := service.Spec{Service: "bank", Limits: service.Limits{MailboxCommands: 2, MailboxBytes: 100},
			Settings: service.Settings{Shards: 2}}
		svc := newService(spec, catalog.Facts{}, budget.New(nil), nil, time.Minute)
		answers := map[string]error{}
		send := func(id string, size int64, deadline time.Duration) (*service.Claim, error) {
			var until time.Time
			if deadline != 0 {
				until = time.Now().Add(deadline)
			}
			var claim *service.Claim
			err := svc.pass(until, &claim, size, func(*build) error { answers[id] = nil; return nil },
				func(err error) { answers[id] = err })
			return claim, err
		}
		refused := func(what string, err error, kind service.Kind) {
			t.Helper()
			var e *service.Error
			if !errors.As(err, &e) || e.Kind != kind || kind == service.KindUnavailable && e.RetryAfter <= 0 {
				t.Errorf("%s: %v, want %s", what, err, kind)
			}
		}
		must := func(claim *service.Claim, err error) *service.Claim {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return claim
		}
		must(send("short", 10, time.Second))
		back := must(send("taken back", 150, time.Hour))
		_, err := send("too much", 50, 0)
		refused("bytes beyond the bound", err, service.KindUnavailable)
		_, err = send("late", 0, -time.Second)
		refused("after its deadline", err, service.KindDeadline)
		must(send("patient", 20, 0))
		must(send("hours", 10, 100*time.Hour))
		_, err = send("one too many", 0, 0)
		refused("a command beyond the bound", err, service.KindUnavailable)
		if !back.Refuse() {
			t.Error("a command that waits cannot be taken back")
		}
		must(send("in its place", 150, 2*time.Minute))
		time.Sleep(time.Second)
		synctest.Wait()
		refused("at its deadline", answers["short"], service.KindUnavailable)
		if len(answers) != 1 {
			t.Errorf("after a second there are answers %v", answers)
		}
		time.Sleep(time.Minute - 2*time.Second)
		svc.openGate(&build{}, nil)
		delete(answers, "short")
		if len(answers) != 3 || answers["patient"] != nil || answers["hours"] != nil || answers["in its place"] != nil {
			t.Errorf("entered: %v", answers)
		}
		if svc.waiting.bytes != 0 || len(svc.waiting.waiting) != 0 {
			t.Errorf("the queue still holds %+v", svc.waiting)
		}
		time.Sleep(time.Hour) // no timer refuses what has entered
		if len(answers) != 3 {
			t.Errorf("an hour later: %v", answers)
		}
	})
}

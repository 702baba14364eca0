package gate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gate"
	"github.com/bulkhead-wasm/bulkhead/host/internal/scratch"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// fake is a guest that counts events.
type fake struct {
	scratch.Guest // panics when another method is called
	count         int
}

func (f *fake) Hydrate(
	ctx context.Context, _ uint32, _ service.Key, _ service.GuestSnapshot, events service.GuestEvents,
) error {
	f.count = 0
	return f.Apply(ctx, 0, events)
}

func (f *fake) Apply(_ context.Context, _ uint32, events service.GuestEvents) error {
	return events(func(service.GuestEvent) error {
		f.count++
		return nil
	})
}

func (f *fake) Handle(context.Context, service.GuestCall) (service.Outcome, error) {
	f.count++
	return service.NewOutcome([]journal.NewEvent{{Type: "added"}}, fmt.Append(nil, f.count), 0), nil
}

func (f *fake) Snapshot(context.Context, uint32) ([]byte, error) {
	return fmt.Append(nil, f.count), nil
}
func (f *fake) About(service.About) {}
func (f *fake) Broken() bool        { return false }
func (f *fake) Worn() bool          { return false }

// run verifies a fake against a log of 100 entities with two events each.
func run(t *testing.T, ctx context.Context, change func(*gate.Options)) (*service.Verification, error) {
	t.Helper()
	j, err := commitlog.Open(t.Context(), journaltest.NewMemory().Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := j.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	for i := range 200 {
		_, err := journaltest.Append(j, &journal.Commit{Log: "bank", Expected: journal.Version(i / 100),
			Command: journal.Command{ID: journal.CommandID(fmt.Sprint(i)), Type: "add", Key: fmt.Sprint("k", i%100),
				Data: []byte("{}"), Reply: fmt.Append(nil, 1+i/100)},
			Events: []journal.NewEvent{{Type: "added"}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	index := service.NewManifestIndex(&abi.Manifest{Commands: []abi.CommandType{{Name: "add"}},
		Events: []abi.EventType{{Name: "added"}}})
	o := gate.Options{Service: "bank", Log: j, Verify: service.Verify{}.WithDefaults(),
		New: scratch.New(j, "bank", index, &fake{}), Old: scratch.New(j, "bank", index, &fake{}),
		Fits:     func(context.Context, uint16, []byte) error { return nil },
		Pace:     func(ctx context.Context) error { return ctx.Err() },
		Progress: func(string, int64, int64) {}}
	change(&o)
	return gate.Run(ctx, o)
}

func TestVerified(t *testing.T) {
	v, err := run(t, t.Context(), func(*gate.Options) {})
	if err != nil || v.Unfinished || v.Entities != 100 || v.Events != 200 || v.OfTypes != 1 || v.States.Same != 100 ||
		v.Commands.Same != 200 || v.Commands.Different != 0 || v.Commands.NotRun != 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

// The budgets bound how many entities are replayed and how many commands run. Commands of a log with more are
// of all of its parts.
func TestBudgets(t *testing.T) {
	for _, commands := range []int{1, 3, 40, 199} {
		v, err := run(t, t.Context(), func(o *gate.Options) { o.Verify.Entities, o.Verify.Commands = 7, commands })
		got := int(v.Commands.Same)
		if err != nil || v.Entities != 7 || got > commands || got < commands/4 || v.Commands.Different > 0 {
			t.Errorf("%d commands: %+v, %v", commands, v, err)
		}
	}
	v, err := run(t, t.Context(), func(o *gate.Options) { o.Verify.Time, o.Verify.CommandTime = 1, 1 })
	if err != nil || v.Entities != 2 || v.Commands.Same != 0 { // the entities of the first and of the last event
		t.Errorf("no time: %+v, %v", v, err)
	}
}

// Where no turn comes, a verification ends with its time. If the needed entities were replayed, it says that
// it has not come to its end; otherwise the module is not verified.
func TestNoTurnComes(t *testing.T) {
	for _, stage := range []string{"", gate.StageReplaying, gate.StageReexecuting} {
		synctest.Test(t, func(t *testing.T) {
			at := ""
			began := time.Now()
			v, err := run(t, t.Context(), func(o *gate.Options) {
				o.Progress = func(s string, _, _ int64) { at = s }
				o.Pace = func(ctx context.Context) error {
					if at == stage {
						<-ctx.Done()
					}
					return ctx.Err()
				}
			})
			if took := time.Since(began); took != service.DefaultVerifyTimeout {
				t.Errorf("%q: it took %v", stage, took)
			}
			if stage == gate.StageReexecuting {
				if err != nil || !v.Unfinished || v.Entities != 100 || v.Took != service.DefaultVerifyTimeout {
					t.Errorf("%q: %+v, %v", stage, v, err)
				}
				return
			}
			if service.KindOf(err) != service.KindOverloaded || service.RetryAfterOf(err) == 0 {
				t.Errorf("%q: %+v, %v", stage, v, err)
			}
		})
	}
}

// Who gives up is told so, and not that the module was not verified in time.
func TestTheCallerGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := run(t, ctx, func(o *gate.Options) { o.Progress = func(string, int64, int64) { cancel() } })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What the module is not to blame for ends the verification with its own error.
func TestOtherErrors(t *testing.T) {
	full := service.Errorf(service.KindOverloaded, "no memory")
	_, err := run(t, t.Context(), func(o *gate.Options) {
		o.Fits = func(context.Context, uint16, []byte) error { return full }
	})
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	large := bytes.Repeat([]byte("x"), 5000)
	v, err := run(t, t.Context(), func(o *gate.Options) {
		o.Fits = func(context.Context, uint16, []byte) error { return service.Errorf(service.KindInvalid, "%s", large) }
	})
	if err != nil || v.Commands.Different != 200 || len(v.Commands.First) > 10 ||
		len(v.Commands.First[0].After.Problem) > len(large) {
		t.Errorf("%+v, %v", v, err)
	}
}

package scratch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/scratch"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// fake is a guest whose state is the data of its events, one after another. Like a sandbox, it applies events
// in portions, and says after a trap only in which portion it was.
type fake struct {
	scratch.Guest // panics when another method is called
	state         string
	applied       int             // events
	trapAt        service.Version // version of the event at which it traps; 0: none
	faultAt       service.Version // of the event that it refuses
	refuses       string          // the snapshot that it does not take
	broken        bool
	resets        int
}

const portion = 4 // events

func (f *fake) Hydrate(
	ctx context.Context, _ uint32, _ service.Key, from service.GuestSnapshot, events service.GuestEvents,
) error {
	if f.broken {
		return service.Errorf(service.KindUnavailable, "it is broken")
	}
	if ctx.Err() != nil {
		return service.Errorf(service.KindGuestDeadline, "the caller's time ran out")
	}
	if from.State != nil && string(from.State) == f.refuses {
		return service.Errorf(service.KindFault, "not my form")
	}
	f.state = string(from.State)
	return events(func(service.GuestEvent) error { panic("an event") })
}

func (f *fake) Apply(_ context.Context, _ uint32, events service.GuestEvents) error {
	var held []service.GuestEvent
	send := func() error {
		for _, e := range held {
			f.applied++
			switch e.Version {
			case f.trapAt:
				f.broken = true
				return &service.ReplayError{First: held[0].Version, Last: held[len(held)-1].Version,
					Err: service.Errorf(service.KindTrap, "unreachable")}
			case f.faultAt:
				return &service.ReplayError{First: e.Version, Last: e.Version,
					Err: service.Errorf(service.KindFault, "no luck")}
			}
			f.state += string(e.Data)
		}
		held = held[:0]
		return nil
	}
	err := events(func(e service.GuestEvent) error {
		e.Data = append([]byte(nil), e.Data...)
		if held = append(held, e); len(held) == portion {
			return send()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return send()
}

func (f *fake) Handle(_ context.Context, c service.GuestCall) (service.Outcome, error) {
	if string(c.Data) == "trap" {
		f.broken = true
		return service.Outcome{}, service.Errorf(service.KindTrap, "unreachable")
	}
	f.state += string(c.Data)
	return service.NewOutcome([]journal.NewEvent{{Type: "added", Data: c.Data}}, fmt.Append(nil, c.Version), 7), nil
}

func (f *fake) Query(_ context.Context, q service.GuestQuery) (service.Outcome, error) {
	return service.NewOutcome(nil, fmt.Append(nil, f.state, " at ", q.Version), 0), nil
}

func (f *fake) Snapshot(context.Context, uint32) ([]byte, error) { return []byte(f.state), nil }
func (f *fake) About(service.About)                              {}
func (f *fake) Broken() bool                                     { return f.broken }
func (f *fake) Worn() bool                                       { return false }
func (f *fake) Close(context.Context) error                      { return nil }
func (f *fake) Reset(context.Context) error {
	f.broken, f.state = false, ""
	f.resets++
	return nil
}

// logged is a journal with an entity "k" of so many events, each with a digit.
func logged(t *testing.T, events int) *commitlog.Journal {
	t.Helper()
	j, err := commitlog.Open(t.Context(), journaltest.NewMemory().Storage(), commitlog.Options{AnswerWindow: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	write(t, j, "k", 0, events)
	return j
}

func write(t *testing.T, j *commitlog.Journal, key string, from, to int) {
	t.Helper()
	for v := from; v < to; v++ {
		_, err := journaltest.Append(j, &journal.Commit{Log: "bank", Expected: journal.Version(v),
			Command: journal.Command{ID: journal.CommandID(fmt.Sprint(key, v)), Type: "add", Key: key},
			Events:  []journal.NewEvent{{Type: "added", Data: fmt.Append(nil, (v+1)%10)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func open(j *commitlog.Journal, f *fake) *scratch.Scratch {
	m := &abi.Manifest{StateSchema: 1, Events: []abi.EventType{{Name: "added"}}}
	return scratch.New(j, "bank", service.NewManifestIndex(m), f)
}

// state is that of an entity at a version.
func state(t *testing.T, s *scratch.Scratch, at service.Version, from scratch.From) string {
	t.Helper()
	if err := s.Open(t.Context(), "k", at, from); err != nil {
		t.Fatalf("version %d: %v", at, err)
	}
	got, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// An entity is brought to any version, from the events or from the best snapshot that the module takes.
func TestAnyVersion(t *testing.T) {
	j := logged(t, 9)
	f := &fake{}
	s := open(j, f)
	const all = "123456789"
	for at := range service.Version(10) {
		if got := state(t, s, at, scratch.FromAny); got != all[:at] || s.Version() != at {
			t.Errorf("version %d: %q at %d", at, got, s.Version())
		}
	}
	if got := state(t, s, scratch.Latest, scratch.FromAny); got != all || s.Version() != 9 {
		t.Errorf("the last version: %q at %d", got, s.Version())
	}
	if err := s.Open(t.Context(), "k", 10, scratch.FromAny); service.KindOf(err) != service.KindNotFound {
		t.Errorf("a version of the future: %v", err)
	}
	if err := s.Open(t.Context(), "other", scratch.Latest, scratch.FromAny); err != nil || s.Version() != 0 {
		t.Errorf("an entity without events: at %d, %v", s.Version(), err)
	}

	j.PutSnapshot(t.Context(), "bank", "k", journal.Snapshot{Version: 5, Schema: 1, State: []byte("five")})
	for _, c := range []struct {
		at      service.Version
		from    scratch.From
		refuses string
		want    string
		applied int
	}{
		{9, scratch.FromAny, "", "five6789", 4},
		{5, scratch.FromAny, "", "five", 0},
		{4, scratch.FromAny, "", "1234", 4}, // the snapshot is of a later version
		{9, scratch.FromEvents, "", all, 9},
		{9, scratch.FromAny, "five", all, 9}, // the module does not take it
	} {
		f.refuses, f.applied = c.refuses, 0
		if got := state(t, s, c.at, c.from); got != c.want || f.applied != c.applied {
			t.Errorf("%+v: %q with %d events", c, got, f.applied)
		}
	}
	j.PutSnapshot(t.Context(), "bank", "k", journal.Snapshot{Version: 6, Schema: 2, State: []byte("other schema")})
	f.refuses = ""
	if got := state(t, s, 9, scratch.FromAny); got != all {
		t.Errorf("beside a snapshot of another schema: %q", got)
	}
}

// What a trial decides is not in the log, and the entity is at its version all the same, so that the next
// command can follow. A failed call closes the entity.
func TestTrialsAreNotWritten(t *testing.T) {
	j := logged(t, 3)
	s := open(j, &fake{})
	ctx := t.Context()
	if _, err := s.Decide(ctx, service.GuestCall{}); service.KindOf(err) != service.KindInternal {
		t.Errorf("before Open: %v", err)
	}
	if got := state(t, s, 2, scratch.FromAny); got != "12" {
		t.Fatal(got)
	}
	for v := range 2 {
		r, err := s.Decide(ctx, service.GuestCall{Data: []byte("x"), Version: 77})
		if err != nil || string(r.Reply) != fmt.Sprint(v+2) || len(r.Events) != 1 || r.Fuel != 7 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if r, err := s.Query(ctx, 0, 0, nil); err != nil || string(r.Reply) != "12xx at 4" {
		t.Errorf("%s, %v", r.Reply, err)
	}
	if j.Head("bank") != 3 {
		t.Errorf("the log is at %d", j.Head("bank"))
	}
	if got := state(t, s, scratch.Latest, scratch.FromAny); got != "123" {
		t.Errorf("afterwards %q", got)
	}
	if _, err := s.Decide(ctx, service.GuestCall{Data: []byte("trap")}); service.KindOf(err) != service.KindTrap {
		t.Errorf("a trap: %v", err)
	}
	if _, err := s.Snapshot(ctx); service.KindOf(err) != service.KindInternal {
		t.Errorf("after a trap: %v", err)
	}
	if got := state(t, s, scratch.Latest, scratch.FromAny); got != "123" {
		t.Errorf("after a reset %q", got)
	}
}

// A fault names the event, also when the module traps, which ends a portion of events.
func TestFaultsNameTheEvent(t *testing.T) {
	j := logged(t, 9)
	for name, f := range map[string]*fake{"trap": {trapAt: 7}, "fault": {faultAt: 7}} {
		s := open(j, f)
		err := s.Open(t.Context(), "k", scratch.Latest, scratch.FromAny)
		var fault *scratch.Fault
		if !errors.As(err, &fault) || fault.First != 7 || fault.Last != 7 || fault.Position != 7 ||
			fault.Event != "added" || !scratch.IsFault(err) ||
			!strings.Contains(err.Error(), `its event of type "added" at version 7, position 7: `+name) {
			t.Errorf("%s: %v", name, err)
		}
		if got := state(t, s, 6, scratch.FromAny); got != "123456" {
			t.Errorf("%s: before it %q", name, got)
		}
		if err := s.Advance(t.Context(), 7); !scratch.IsFault(err) {
			t.Errorf("%s: advance: %v", name, err)
		}
		if _, err := s.Snapshot(t.Context()); err == nil {
			t.Errorf("%s: a state after the fault", name)
		}
	}
	// A type that the module does not know.
	_, err := journaltest.Append(j, &journal.Commit{Log: "bank", Expected: 9,
		Command: journal.Command{ID: "x", Type: "x", Key: "k"},
		Events:  []journal.NewEvent{{Type: "removed", Data: []byte("{}")}}})
	if err != nil {
		t.Fatal(err)
	}
	err = open(j, &fake{}).Open(t.Context(), "k", scratch.Latest, scratch.FromAny)
	if !scratch.IsFault(err) || !strings.Contains(err.Error(), `of type "removed" at version 10, position 10`) {
		t.Errorf("an unknown type: %v", err)
	}
}

// A module is not to blame for a caller that gives up, nor for a log that cannot be read.
func TestErrorsThatAreNotTheModules(t *testing.T) {
	j := logged(t, 9)
	s := open(j, &fake{})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Open(gone, "k", scratch.Latest, scratch.FromAny); err == nil || scratch.IsFault(err) {
		t.Errorf("a caller that has gone: %v", err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context(), "k", scratch.Latest, scratch.FromAny); err == nil || scratch.IsFault(err) {
		t.Errorf("a journal that is closed: %v", err)
	}
}

// Where events are deleted, a version is made of a snapshot at or before it, or not at all.
func TestDeletedEvents(t *testing.T) {
	j := logged(t, 9)
	write(t, j, "last", 0, 1)
	j.PutSnapshot(t.Context(), "bank", "k", journal.Snapshot{Version: 5, Schema: 1, State: []byte("five")})
	done, err := j.Retain(t.Context(), "bank", journal.Retention{Before: 6, Schema: 1})
	if err != nil || done.First != 6 {
		t.Fatalf("%+v, %v", done, err)
	}
	f := &fake{}
	s := open(j, f)
	for _, from := range []scratch.From{scratch.FromAny, scratch.FromEvents} {
		if got := state(t, s, 9, from); got != "five6789" {
			t.Errorf("%q", got)
		}
	}
	gone := func(at service.Version) {
		t.Helper()
		err := s.Open(t.Context(), "k", at, scratch.FromAny)
		var own *service.Error
		if !errors.As(err, &own) || own.Code != scratch.CodeHistoryDeleted {
			t.Errorf("version %d: %v", at, err)
		}
	}
	gone(4)
	f.refuses = "five"
	err = s.Open(t.Context(), "k", 9, scratch.FromAny)
	if !scratch.IsFault(err) || !strings.Contains(err.Error(), "not my form") {
		t.Errorf("a module that does not take the snapshot: %v", err)
	}
	// A later snapshot is a source of its own.
	j.PutSnapshot(t.Context(), "bank", "k", journal.Snapshot{Version: 8, Schema: 1, State: []byte("eight")})
	if got := state(t, s, 9, scratch.FromEvents); got != "eight9" {
		t.Errorf("%q", got)
	}
	f.refuses = ""
	if got := state(t, s, 7, scratch.FromAny); got != "five67" {
		t.Errorf("%q", got)
	}
}

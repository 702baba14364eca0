package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// bankManifest is that of a bank; bodies are decimal numbers.
var bankManifest = &abi.Manifest{
	ABI: abi.Version, Service: "bank", Encoding: "text/plain", // amounts, followed by words
	Commands: []abi.CommandType{{Name: "deposit"}, {Name: "withdraw"}, {Name: "trap"}, {Name: "fault"},
		{Name: "touch"}},
	Queries: []abi.QueryType{{Name: "balance"}, {Name: "break"}},
	Events:  []abi.EventType{{Name: "deposited"}, {Name: "withdrawn", Aliases: []string{"taken"}}},
}

// bankGuest is a bank in Go in place of a sandbox. It checks that the engine keeps the contract: the test
// fails on a slot that is not open, a wrong version, time that decreases, or a call while broken.
type bankGuest struct {
	about  service.About // its last argument
	t      testing.TB
	record func(format string, args ...any)

	accounts map[uint32]*account
	broken   bool
	time     journal.UnixNano
	memory   int64
	worn     int64 // memory above which the guest is worn; 0: never
	leak     int64 // bytes of memory that each event adds
	fuel     uint64

	schema  uint32               // in its snapshots
	earlier []uint32             // in snapshots that it takes
	form    string               // in its snapshots, beside the schema; it refuses others
	lenient bool                 // it refuses no form
	double  bool                 // another build, which counts each event twice
	encode  func(*account) error // returns why a state cannot be encoded; nil: all can
	decode  func(snapshot []byte) error

	unlucky  bool // it cannot apply 13
	replayed int  // events
	granted  uint64
	onApply  func(*account, service.GuestEvent)

	resetErr error // of the next Reset
	closed   bool
}

type account struct {
	key     service.Key
	version service.Version
	balance int64
	dirty   bool
}

func newBankGuest(t testing.TB) *bankGuest {
	return &bankGuest{t: t, record: func(string, ...any) {}, accounts: map[uint32]*account{}, memory: 1 << 16}
}

func (g *bankGuest) enter(what string) {
	if g.broken || g.closed {
		g.t.Errorf("%s of a guest that is broken (%v) or closed (%v)", what, g.broken, g.closed)
	}
}

func (g *bankGuest) Hydrate(_ context.Context, slot uint32, key service.Key, from service.GuestSnapshot,
	events service.GuestEvents) error {
	g.enter("Hydrate")
	version, snapshot := from.Version, from.State
	for s, a := range g.accounts {
		if a.key == key && s != slot {
			// The entity may be in a retired slot, which has not been dropped yet.
			a.dirty = true
		}
	}
	a := &account{key: key, version: version}
	g.accounts[slot] = a
	if (snapshot != nil) != (version > 0) {
		g.t.Errorf("%s: a snapshot of %d bytes at version %d", key, len(snapshot), version)
	}
	what := "hydrate"
	if snapshot != nil {
		what = fmt.Sprintf("hydrate from v%d", version)
		var schema uint32
		want := g.schema
		if from.Earlier {
			want = g.earlier[from.Schema]
		}
		state, form, _ := strings.Cut(string(snapshot), ";")
		if form != g.form && !g.lenient {
			a.dirty = true
			return &service.Error{Kind: service.KindFault, Code: abi.CodeBadSnapshot, Message: "not my form"}
		}
		snapshot = []byte(state)
		if n, err := fmt.Sscanf(string(snapshot), "%d in form %d", &a.balance, &schema); n != 2 || schema != want {
			g.t.Errorf("%s: a snapshot %q given as one of schema %d, %v", key, snapshot, want, err)
		}
	}
	if snapshot != nil && g.decode != nil {
		if err := g.decode(snapshot); err != nil {
			g.record("%s %s: %s", what, key, service.KindOf(err))
			a.dirty, g.broken = true, service.KindOf(err) != service.KindFault
			return err
		}
	}
	if err := g.replay(a, events); err != nil {
		return err
	}
	g.record("%s %s v%d slot %d", what, key, a.version, slot)
	return nil
}

func (g *bankGuest) Apply(_ context.Context, slot uint32, events service.GuestEvents) error {
	g.enter("Apply")
	a := g.accounts[slot]
	if a == nil || a.dirty {
		g.t.Errorf("Apply to slot %d, which has %+v", slot, a)
		return nil
	}
	if err := g.replay(a, events); err != nil {
		return err
	}
	g.record("apply %s v%d", a.key, a.version)
	return nil
}

// replay applies events. An event of 666 breaks the guest; an unlucky guest cannot apply 13.
func (g *bankGuest) replay(a *account, events service.GuestEvents) error {
	var failed error
	first := a.version + 1
	err := events(func(e service.GuestEvent) error {
		if e.Version != a.version+1 {
			g.t.Errorf("%s: event of version %d at %d", a.key, e.Version, a.version)
		}
		g.replayed++
		if !e.Again {
			g.granted += e.Fuel
		}
		if g.onApply != nil {
			g.onApply(a, e)
		}
		if string(e.Data) == "13" && g.unlucky {
			g.record("hydrate %s: fault", a.key)
			a.dirty = true
			failed = &service.ReplayError{First: e.Version, Last: e.Version,
				Err: &service.Error{Kind: service.KindFault, Code: "panic", Message: "13 is bad luck"}}
			return failed
		}
		a.apply(e.Type, e.Data)
		if g.double {
			a.apply(e.Type, e.Data)
			a.version--
		}
		if string(e.Data) == "666" {
			g.record("hydrate %s: trap", a.key)
			g.broken = true
			failed = &service.ReplayError{First: first, Last: e.Version,
				Err: service.Errorf(service.KindTrap, "cannot bear 666")}
		}
		return failed
	})
	if failed != nil {
		if err != failed {
			g.t.Errorf("%s: the guest's error %v came back as %v", a.key, failed, err)
		}
		return failed
	}
	if err != nil {
		g.record("hydrate %s failed: %s", a.key, service.KindOf(err))
		return err
	}
	return nil
}

func (g *bankGuest) Snapshot(_ context.Context, slot uint32) ([]byte, error) {
	a := g.accounts[slot]
	if a == nil {
		g.t.Errorf("Snapshot of slot %d, which is not open", slot)
		a = &account{}
	}
	a = g.account("Snapshot", slot, a.version, g.time)
	if g.encode != nil {
		if err := g.encode(a); err != nil {
			g.record("snapshot %s: %s", a.key, service.KindOf(err))
			a.dirty, g.broken = true, service.KindOf(err) != service.KindFault
			return nil, err
		}
	}
	g.record("snapshot %s v%d", a.key, a.version)
	state := fmt.Appendf(nil, "%d in form %d", a.balance, g.schema)
	if g.form != "" {
		state = append(state, ";"+g.form...)
	}
	return state, nil
}

func (a *account) apply(typ uint16, data []byte) {
	n, _ := strconv.ParseInt(string(data), 10, 64)
	if typ == 1 {
		n = -n
	}
	a.balance += n
	a.version++
}

func (g *bankGuest) account(what string, slot uint32, version service.Version, time journal.UnixNano) *account {
	g.enter(what)
	a := g.accounts[slot]
	switch {
	case a == nil:
		g.t.Errorf("%s of slot %d, which is not open", what, slot)
		return &account{}
	case a.dirty:
		g.t.Errorf("%s of %s, which is dirty", what, a.key)
	case a.version != version:
		g.t.Errorf("%s of %s at version %d, it has %d", what, a.key, version, a.version)
	}
	if time < g.time {
		g.t.Errorf("time went back from %d to %d", g.time, time)
	}
	g.time = time
	return a
}

func (g *bankGuest) Handle(_ context.Context, c service.GuestCall) (service.Outcome, error) {
	a := g.account("Handle", c.Slot, c.Version, c.Time)
	name := bankManifest.Commands[c.Type].Name
	g.record("call %s %s v%d (%s)", name, a.key, a.version, c.ID)
	n, err := strconv.ParseInt(string(c.Data), 10, 64)
	switch {
	case name == "trap":
		g.broken = true
		g.fuel += 3
		return service.Outcome{}, service.Errorf(service.KindTrap, "unreachable")
	case name == "fault" || err != nil:
		a.dirty = true
		a.balance += 1000000
		g.fuel += 3
		return service.Outcome{}, service.Errorf(service.KindFault, "as you wish")
	case name == "touch":
		g.fuel++
		return service.NewOutcome(nil, strconv.AppendInt(nil, a.balance, 10), 1), nil
	case name == "withdraw" && n > a.balance:
		g.fuel++
		return service.NewRejection(&service.Error{Kind: service.KindRejected, Code: "overdraft",
			Message: fmt.Sprintf("there are only %d", a.balance)}, 1), nil
	}
	typ := c.Type // command and event types agree
	a.apply(typ, c.Data)
	g.fuel += 2
	g.memory += g.leak
	events := []journal.NewEvent{{Type: bankManifest.Events[typ].Name, Data: c.Data}}
	return service.NewOutcome(events, strconv.AppendInt(nil, a.balance, 10), 2), nil
}

func (g *bankGuest) Query(_ context.Context, q service.GuestQuery) (service.Outcome, error) {
	a := g.account("Query", q.Slot, q.Version, q.Time)
	g.record("query %s v%d", a.key, a.version)
	if q.Type == 1 {
		g.broken = true
		return service.Outcome{}, service.Errorf(service.KindGuestDeadline, "too long")
	}
	g.fuel++
	return service.NewOutcome(nil, strconv.AppendInt(nil, a.balance, 10), 1), nil
}

func (g *bankGuest) Drop(_ context.Context, slots ...uint32) error {
	g.enter("Drop")
	for _, s := range slots {
		delete(g.accounts, s)
	}
	g.record("drop slots %v", slots)
	return nil
}

func (g *bankGuest) Reset(context.Context) error {
	clear(g.accounts)
	if err := g.resetErr; err != nil {
		g.record("reset failed")
		return err
	}
	g.record("reset")
	g.broken = false
	if g.leak > 0 {
		g.memory = 1 << 16
	}
	return nil
}

func (g *bankGuest) MemoryBytes() int64 { return g.memory }

func (g *bankGuest) Work(_ context.Context, do func(rest func() error) (time.Duration, error)) error {
	_, err := do(func() error { return nil })
	return err
}

func (g *bankGuest) About(a service.About) { g.about = a }

func (g *bankGuest) Worn() bool { return g.worn > 0 && g.memory >= g.worn }

func (g *bankGuest) Fuel() uint64 { return g.fuel }

func (g *bankGuest) Close(context.Context) error {
	if g.closed {
		return errors.New("closed twice")
	}
	g.closed = true
	g.record("close guest")
	return nil
}

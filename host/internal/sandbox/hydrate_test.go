package sandbox

import (
	"errors"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// took returns n events, each of another command that took so much fuel.
func took(first service.Version, n int, fuel uint64) service.GuestEvents {
	return func(yield func(service.GuestEvent) error) error {
		for v := range n {
			if err := yield(service.GuestEvent{Version: first + service.Version(v), Data: []byte("{}"),
				Fuel: fuel}); err != nil {
				return err
			}
		}
		return nil
	}
}

// toiler is a guest that works for n steps in each request of a hydration.
func toiler(n int32) []byte {
	work := testguest.Code(
		testguest.I32Const(n), testguest.Set(1),
		testguest.Loop(testguest.Get(1), testguest.I32Const(1), testguest.I32Sub, testguest.Set(1), testguest.Get(1),
			testguest.BrIf(0)),
		testguest.I64Const(0),
	)
	return testguest.Liar{Code: map[abi.RequestKind][]byte{abi.ReqOpen: work, abi.ReqApply: work}}.Bytes()
}

// An event's replay may take what its command took, with a margin, even if that is longer than a call may
// take. Without the margin the hydration would fail.
func TestAHydrationTakesWhatItsCommandsTook(t *testing.T) {
	i := instantiate(t, mustCompile(t, toiler(5_000_000), service.Limits{CallTime: time.Millisecond, Fuel: 100_000,
		EventFuel: 1000}), nil)
	const fuel = chunkFuel/2 + 1 // so that each event is sent alone
	before, began := i.Fuel(), time.Now()
	if err := i.Hydrate(t.Context(), testguest.LiarSlot, "key", service.GuestSnapshot{}, took(1, 3, fuel)); err != nil {
		t.Fatal(err)
	}
	if err := i.Apply(t.Context(), testguest.LiarSlot, took(4, 2, fuel)); err != nil {
		t.Fatal(err)
	}
	spent := i.Fuel() - before
	if each := spent / 5; each < fuel || each > fuelMargin*fuel {
		t.Errorf("each event took %d fuel, which proves nothing", each)
	}
	t.Logf("%d fuel in %v, where a call may take %v", spent, time.Since(began), time.Millisecond)

	err := i.Apply(t.Context(), testguest.LiarSlot, took(6, 3*chunkEvents, 100))
	var replay *service.ReplayError
	if service.KindOf(err) != service.KindGuestFuel || !i.Broken() || !errors.As(err, &replay) || replay.First != 6 ||
		replay.Last != 5+chunkEvents {
		t.Errorf("events of commands that took next to nothing: %v", err)
	}
}

// Events of one command that go in two requests may take in each what the command took.
func TestACommandWithMoreEventsThanARequest(t *testing.T) {
	i := instantiate(t, mustCompile(t, toiler(1_000_000), service.Limits{CallTime: time.Millisecond, Fuel: 100_000,
		EventFuel: 1000}), nil)
	const fuel = 10_000_000 // so that as many events as possible go together
	of := func(yield func(service.GuestEvent) error) error {
		for v := range service.Version(2 * chunkEvents) {
			if err := yield(service.GuestEvent{Version: v + 1, Data: []byte("{}"), Fuel: fuel,
				Again: v > 0}); err != nil {
				return err
			}
		}
		return nil
	}
	before := i.Fuel()
	if err := i.Hydrate(t.Context(), testguest.LiarSlot, "key", service.GuestSnapshot{}, of); err != nil {
		t.Fatal(err)
	}
	if spent := i.Fuel() - before; spent < fuel || spent > 2*fuelMargin*fuel {
		t.Errorf("it took %d fuel, which proves nothing", spent)
	}
	took := func(n service.Version) (fuel int64) {
		c := chunk{}
		for v := range n {
			e := service.GuestEvent{Version: v + 1, Fuel: 10, Again: v > 0}
			c.add(&e, c.mayTake(&e))
		}
		return c.fuel
	}
	if took(1) != took(chunkEvents) {
		t.Errorf("one event may take %d fuel, many of the same command %d", took(1), took(chunkEvents))
	}
}

// A Fault identifies its event, and at most one request's events follow it.
func TestWhichEventWasToBlame(t *testing.T) {
	fault := func(index uint32) []byte {
		return abi.AppendRefusal(nil, abi.Response{Kind: abi.RespFault, Slot: testguest.LiarSlot, Index: index},
			"bad_event", "what is this")
	}
	answers := map[abi.RequestKind][]byte{abi.ReqOpen: testguest.Code(fault(3), fault(4)),
		abi.ReqApply: testguest.Code(fault(2), fault(5))}
	i := instantiate(t, mustCompile(t, testguest.Liar{Answers: answers}.Bytes(), quick), nil)
	blamed := func(err error, want service.Version) {
		t.Helper()
		var replay *service.ReplayError
		if service.KindOf(err) != service.KindFault || !errors.As(err, &replay) || replay.First != want ||
			replay.Last != want || i.Broken() {
			t.Errorf("got %v, want version %d", err, want)
		}
	}
	given := 0
	counted := func(events service.GuestEvents) service.GuestEvents {
		return func(yield func(service.GuestEvent) error) error {
			return events(func(e service.GuestEvent) error { given++; return yield(e) })
		}
	}
	// the Open is frame 0
	blamed(i.Hydrate(t.Context(), testguest.LiarSlot, "key", service.GuestSnapshot{}, counted(took(1, 1000, 1))), 3)
	if given > chunkEvents+1 {
		t.Errorf("%d events were taken", given)
	}
	blamed(i.Apply(t.Context(), testguest.LiarSlot, took(101, 10, 1)), 103)

	// The snapshot is not an event, although the first ones go with it.
	refused := map[abi.RequestKind][]byte{abi.ReqOpen: testguest.Code(fault(0), fault(1))}
	i = instantiate(t, mustCompile(t, testguest.Liar{Answers: refused}.Bytes(), quick), nil)
	given = 0
	from := service.GuestSnapshot{Version: 7, State: []byte("{}")}
	err := i.Hydrate(t.Context(), testguest.LiarSlot, "key", from, counted(took(8, 1000, 1)))
	var replay *service.ReplayError
	if service.KindOf(err) != service.KindFault || errors.As(err, &replay) || i.Broken() || given > chunkEvents+1 {
		t.Errorf("%v after %d events", err, given)
	}
}

// A snapshot and the first events after it are one request, unless it is large.
func TestASnapshotGoesWithItsEvents(t *testing.T) {
	fault := abi.AppendRefusal(nil, abi.Response{Kind: abi.RespFault, Slot: testguest.LiarSlot}, "bad_event",
		"what is this")
	i := instantiate(t, mustCompile(t, testguest.Liar{Answers: map[abi.RequestKind][]byte{abi.ReqApply: fault}}.Bytes(),
		quick), nil)
	hydrate := func(i *Instance, snapshot []byte, n int) error {
		from := service.GuestSnapshot{Version: 7, State: snapshot}
		return i.Hydrate(t.Context(), testguest.LiarSlot, "key", from, took(8, n, 1))
	}
	for _, n := range []int{0, 1, chunkEvents} {
		if err := hydrate(i, []byte("{}"), n); err != nil {
			t.Errorf("a snapshot and %d events: %v", n, err)
		}
	}
	var replay *service.ReplayError
	if err := hydrate(i, []byte("{}"), chunkEvents+1); !errors.As(err, &replay) || replay.First != 8+chunkEvents ||
		replay.Last != replay.First {
		t.Errorf("more events than a request has: %v", err)
	}
	small, large := chunk{frames: 1, b: make([]byte, chunkBytes/2)}, chunk{frames: 1, b: make([]byte, chunkBytes)}
	if e := (service.GuestEvent{Version: 8}); small.full(&e, 0) || !large.full(&e, 0) {
		t.Error("events go with a large snapshot, or not with a small one")
	}

	// After a trap the snapshot or an event may be the cause.
	traps := testguest.Liar{
		Code: map[abi.RequestKind][]byte{abi.ReqOpen: testguest.Code(testguest.Unreachable)}}.Bytes()
	for _, snapshot := range [][]byte{nil, []byte("{}")} {
		i := instantiate(t, mustCompile(t, traps, quick), nil)
		err := hydrate(i, snapshot, 3)
		if service.KindOf(err) != service.KindTrap || !i.Broken() || errors.As(err, &replay) != (snapshot == nil) {
			t.Errorf("a trap with the snapshot %q: %v", snapshot, err)
		}
	}
}

// A state of up to the maximum size of a snapshot can be encoded, whatever the limit of outcomes is. A larger
// one is a Fault, and the sandbox stays usable.
func TestLargeStates(t *testing.T) {
	answer := func(body int32) []byte {
		store := func(at uint32, v int32) []byte {
			return testguest.Code(testguest.I32Const(testguest.LiarBytes), testguest.I32Const(v), testguest.Store32(at))
		}
		length := abi.ResponseHeaderSize + 8 + body
		return testguest.Code(
			testguest.I32Const(300), testguest.MemoryGrow, testguest.Drop,
			store(0, length), store(4, int32(abi.RespSnapshot)), store(8, testguest.LiarSlot), store(12, 8+body),
			store(abi.ResponseHeaderSize, body),
			testguest.I64Const(int64(abi.PackRange(testguest.LiarBytes, uint32(length)))),
		)
	}
	for size, fits := range map[int32]bool{5 << 20: true, journal.MaxSnapshot: true, journal.MaxSnapshot + 8: false,
		17 << 20: false} {
		module := testguest.Liar{Code: map[abi.RequestKind][]byte{abi.ReqSnapshot: answer(size)}}.Bytes()
		i := instantiate(t, mustCompile(t, module, service.Limits{}), nil)
		state, err := i.Snapshot(t.Context(), testguest.LiarSlot)
		if fits && (err != nil || len(state) != int(size)) {
			t.Errorf("%d bytes: got %d, %v", size, len(state), err)
		}
		var e *service.Error
		if !fits && (!errors.As(err, &e) || e.Kind != service.KindFault || e.Code != CodeStateTooLarge || i.Broken()) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if err := ask(i, abi.ReqCommand, testguest.HonestSlot); err != nil {
			t.Error(err)
		}
	}
}

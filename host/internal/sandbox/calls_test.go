package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// events yields n events.
func events(n int, data []byte) service.GuestEvents {
	return func(yield func(service.GuestEvent) error) error {
		for v := range n {
			if err := yield(service.GuestEvent{Version: service.Version(v + 1), Data: data}); err != nil {
				return err
			}
		}
		return nil
	}
}

// ask sends one request of a kind about an entity.
func ask(i *Instance, kind abi.RequestKind, slot uint32) error {
	ctx := context.Background()
	var err error
	switch kind {
	case abi.ReqOpen:
		err = i.Hydrate(ctx, slot, "key", service.GuestSnapshot{}, events(1, []byte("{}")))
	case abi.ReqCommand:
		_, err = i.Handle(ctx, service.GuestCall{Slot: slot, ID: "id", Data: []byte("{}")})
	case abi.ReqQuery:
		_, err = i.Query(ctx, service.GuestQuery{Slot: slot})
	case abi.ReqSnapshot:
		_, err = i.Snapshot(ctx, slot)
	case abi.ReqDrop:
		err = i.Drop(ctx, slot)
	default:
		panic(kind)
	}
	return err
}

// misbehave runs a guest that does something wrong. The error names it, the call stays within its limits, and
// the instance refuses further calls until it is reset. Then its state is the initial one and the next
// command works.
func misbehave(t *testing.T, c testguest.Misbehaviour, l service.Limits) {
	p := mustCompile(t, c.Module, l)
	i := instantiate(t, p, nil)
	start := i.MemoryBytes()
	if err := ask(i, abi.ReqCommand, testguest.HonestSlot); err != nil {
		t.Fatalf("the honest command before: %v", err)
	}
	err := ask(i, c.Asked, testguest.LiarSlot)
	if service.KindOf(err) != c.Kind || !strings.Contains(err.Error(), c.Want) {
		t.Fatalf("got %v\nwant %v with %q", err, c.Kind, c.Want)
	}
	var e *service.Error
	errors.As(err, &e)
	if limit := uint64(p.limits.Fuel); e.Fuel == 0 || e.Fuel > limit || c.Kind == service.KindGuestFuel &&
		e.Fuel != limit {
		t.Errorf("%d fuel of %d", e.Fuel, limit)
	}
	if !i.Broken() {
		t.Error("the instance is not marked broken")
	}
	if err := ask(i, abi.ReqCommand, testguest.HonestSlot); service.KindOf(err) != service.KindUnavailable {
		t.Errorf("a call of the broken instance: %v", err)
	}
	if err := i.Reset(context.Background()); err != nil {
		t.Fatal(err)
	}
	if i.MemoryBytes() != start {
		t.Errorf("memory is %d bytes after a reset, was %d", i.MemoryBytes(), start)
	}
	for _, k := range []abi.RequestKind{abi.ReqOpen, abi.ReqCommand, abi.ReqQuery, abi.ReqSnapshot, abi.ReqDrop} {
		if err := ask(i, k, testguest.HonestSlot); err != nil {
			t.Errorf("%v after the reset: %v", k, err)
		}
	}
}

// Ordinary bugs; for malicious guests see TestThreatsOfCalls.
func TestMisbehaviour(t *testing.T) {
	for _, c := range testguest.Traps() {
		t.Run(c.Name, func(t *testing.T) { misbehave(t, c, quick) })
	}
}

func TestTrapHasAStackTrace(t *testing.T) {
	module := testguest.Liar{
		Code: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(testguest.Call(2), testguest.I64Const(0))},
		With: func(b *testguest.Builder) {
			b.Func(nil, nil, nil, testguest.Unreachable)
			b.Custom("name", []byte{1, 12, 2, 1, 4, 'c', 'a', 'l', 'l', 2, 3, 'b', 'o', 'o'})
		},
	}.Bytes()
	i := instantiate(t, mustCompile(t, module, quick), nil)
	err := ask(i, abi.ReqCommand, testguest.LiarSlot)
	if d := detail(err); !strings.Contains(d, ".boo()") || !strings.Contains(d, ".call(i32) i64") {
		t.Errorf("trace %q of %v", d, err)
	}
}

func TestCounter(t *testing.T) {
	ctx := t.Context()
	i := instantiate(t, mustCompile(t, testguest.Counter("counter"), service.Limits{}), nil)
	if err := i.Hydrate(ctx, 3, "key", service.GuestSnapshot{},
		events(10_000, bytes.Repeat([]byte("x"), 100))); err != nil {
		t.Fatal(err)
	}
	count := func(slot uint32, want string) {
		t.Helper()
		o, err := i.Query(ctx, service.GuestQuery{Slot: slot})
		if err != nil || replyOf(t, o) != want {
			t.Fatalf("count is %s, %v; want %s", replyOf(t, o), err, want)
		}
	}
	count(3, "10000")
	o, err := i.Handle(ctx, service.GuestCall{Slot: 3, Type: testguest.CounterAdd3, ID: "a"})
	if err != nil || replyOf(t, o) != "10003" || len(o.Events) != 3 || o.Events[2].Type != "added" ||
		string(o.Events[2].Data) != "{}" {
		t.Fatalf("%+v, %v", o, err)
	}
	snapshot, err := i.Snapshot(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	from := service.GuestSnapshot{Version: 10_003, State: snapshot}
	if err := i.Hydrate(ctx, 4, "other", from, events(2, nil)); err != nil {
		t.Fatal(err)
	}
	count(4, "10005")
	if err := i.Drop(ctx, 3, 4); err != nil {
		t.Fatal(err)
	}
	count(4, "0")
	o, err = i.Handle(ctx, service.GuestCall{Slot: 4, Type: testguest.CounterReject, ID: "a"})
	if err != nil || !o.Rejected() || len(o.Events) != 0 {
		t.Fatalf("%+v, %v", o, err)
	}
	_, err = i.Handle(ctx, service.GuestCall{Slot: 4, Type: testguest.CounterFault, ID: "a"})
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindFault || e.Code != "error" || e.Message != "broken" || i.Broken() {
		t.Fatalf("%#v, broken %v", err, i.Broken())
	}
	echo := []byte(`{"text":"hello"}`)
	o, err = i.Handle(ctx, service.GuestCall{Slot: 4, Type: testguest.CounterEcho, ID: "abc",
		Metadata: abi.Metadata(nil).AppendPair("a", "b"), Data: echo})
	if err != nil || replyOf(t, o) != string(echo) {
		t.Fatalf("%q, %v", replyOf(t, o), err)
	}
	raw, err := i.Exchange(ctx, abi.AppendQuery(nil, 4, 0, 0, 0, nil))
	if r, _, e := abi.DecodeResponse(raw); err != nil || e != nil || r.Kind != abi.RespReply {
		t.Fatalf("%v %v %v", r, err, e)
	}
}

// An outcome is a copy: what the guest does later does not change it.
func TestOutcomeIsACopy(t *testing.T) {
	i := instantiate(t, mustCompile(t, testguest.Counter("counter"), service.Limits{}), nil)
	o, err := i.Handle(t.Context(), service.GuestCall{Type: testguest.CounterEcho, ID: "a", Data: []byte(`"first"`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Handle(t.Context(), service.GuestCall{Type: testguest.CounterEcho, ID: "b", Data: []byte(`"other"`)}); err != nil {
		t.Fatal(err)
	}
	if got := replyOf(t, o); got != `"first"` {
		t.Errorf("the reply became %s", got)
	}
}

func TestTooLargeData(t *testing.T) {
	i := instantiate(t, mustCompile(t, testguest.Counter("counter"), service.Limits{CommandBytes: 100}), nil)
	big := make([]byte, 101)
	if _, err := i.Handle(t.Context(), service.GuestCall{Data: big}); service.KindOf(err) != service.KindTooLarge ||
		i.Broken() {
		t.Errorf("command: %v, broken %v", err, i.Broken())
	}
	if _, err := i.Query(t.Context(), service.GuestQuery{Data: big}); service.KindOf(err) != service.KindTooLarge ||
		i.Broken() {
		t.Errorf("query: %v, broken %v", err, i.Broken())
	}
}

// Mailboxes grow with the request, also across a growth of memory. A guest that cannot grow its own reports
// that once.
func TestMailboxGrows(t *testing.T) {
	i := instantiate(t, mustCompile(t, testguest.Counter("counter"), service.Limits{}), nil)
	for _, size := range []int{10, 100_000, 1 << 20, 50} {
		o, err := i.Handle(t.Context(), service.GuestCall{Type: testguest.CounterNop, Data: make([]byte, size)})
		if err != nil || replyOf(t, o) != "null" {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	fixed := instantiate(t, mustCompile(t, testguest.Liar{}.Bytes(), service.Limits{}), nil)
	size := testguest.LiarBytes - testguest.LiarMailbox - 64 // not a multiple of reserveStep
	if _, err := fixed.Handle(t.Context(), service.GuestCall{Slot: 2, Data: make([]byte, size)}); err != nil {
		t.Fatalf("a request as large as the guest's fixed mailbox: %v", err)
	}
	_, err := fixed.Handle(t.Context(), service.GuestCall{Slot: 2, Data: make([]byte, size+1)})
	if service.KindOf(err) != service.KindProtocol || !strings.Contains(err.Error(), "refused a mailbox") {
		t.Errorf("a larger one: %v", err)
	}
}

func TestHydrateFailures(t *testing.T) {
	fault := abi.AppendRefusal(nil, abi.Response{Kind: abi.RespFault, Slot: testguest.LiarSlot}, "bad_event",
		"what is this")
	i := instantiate(t, mustCompile(t,
		testguest.Liar{Answers: map[abi.RequestKind][]byte{abi.ReqOpen: fault, abi.ReqSnapshot: fault}}.Bytes(), quick),
		nil)
	err := i.Hydrate(t.Context(), testguest.LiarSlot, "key", service.GuestSnapshot{}, events(3, nil))
	if service.KindOf(err) != service.KindFault || i.Broken() {
		t.Errorf("fault: %v, broken %v", err, i.Broken())
	}
	if _, err := i.Snapshot(t.Context(), testguest.LiarSlot); service.KindOf(err) != service.KindFault || i.Broken() {
		t.Errorf("snapshot: %v, broken %v", err, i.Broken())
	}
	stop := errors.New("disk on fire")
	err = i.Hydrate(t.Context(), testguest.HonestSlot, "key", service.GuestSnapshot{},
		func(func(service.GuestEvent) error) error { return stop })
	if !errors.Is(err, stop) || i.Broken() {
		t.Errorf("source: %v, broken %v", err, i.Broken())
	}
	if err := ask(i, abi.ReqCommand, testguest.HonestSlot); err != nil {
		t.Error(err)
	}
}

// Limits are those of the service: one event, a small outcome.
func TestServiceLimits(t *testing.T) {
	i := instantiate(t, mustCompile(t, testguest.Counter("counter"), service.Limits{Events: 2, OutcomeBytes: 256}), nil)
	_, err := i.Handle(t.Context(), service.GuestCall{Type: testguest.CounterAdd3})
	if service.KindOf(err) != service.KindOutcomeTooLarge || !strings.Contains(err.Error(), "more than 2 events") {
		t.Errorf("%v", err)
	}
	if err := i.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = i.Handle(t.Context(),
		service.GuestCall{Type: testguest.CounterEcho, Data: fmt.Appendf(nil, "%q", strings.Repeat("x", 300))})
	if service.KindOf(err) != service.KindOutcomeTooLarge || !strings.Contains(err.Error(), "the limit is 256") {
		t.Errorf("%v", err)
	}
}

// table.grow returns -1 beyond the service's limit, and a module whose table begins beyond it is refused.
func TestTableLimit(t *testing.T) {
	grow := func(n, want int32) []byte {
		return testguest.Code(testguest.Op(0xd0, 0x70), testguest.I32Const(n), testguest.Op(0xfc, 0x0f, 0),
			testguest.I32Const(want), testguest.I32Eq, testguest.I32Eqz, testguest.If(testguest.Unreachable))
	}
	module := func(size uint64) []byte {
		return testguest.Liar{
			Code: map[abi.RequestKind][]byte{abi.ReqCommand: testguest.Code(grow(40, 10), grow(1, -1),
				grow(1<<31-1, -1), grow(0, 50), testguest.Code(liarAnswer...))},
			With: func(b *testguest.Builder) { b.Table(size) },
		}.Bytes()
	}
	limits := service.Limits{TableElements: 50, Fuel: endless}
	i := instantiate(t, mustCompile(t, module(10), limits), nil)
	for range 3 {
		if err := ask(i, abi.ReqCommand, testguest.LiarSlot); err != nil {
			t.Fatal(err)
		}
		if err := i.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_, err := shared().Compile(t.Context(), "", module(51), limits, service.Settings{}, nil)
	if service.KindOf(err) != service.KindBadModule || !strings.Contains(err.Error(), "51") ||
		!strings.Contains(err.Error(), "50") {
		t.Errorf("a table of 51 elements: %v", err)
	}
	large := instantiate(t, mustCompile(t, module(150_000), service.Limits{TableElements: 200_000}), nil)
	if err := ask(large, abi.ReqCommand, testguest.HonestSlot); err != nil {
		t.Error(err)
	}
}

// memory.grow returns -1 beyond the service's limit, to the page.
func TestMemoryLimit(t *testing.T) {
	grow := func(n, want int32) []byte {
		return testguest.Code(testguest.I32Const(n), testguest.MemoryGrow, testguest.I32Const(want), testguest.I32Eq,
			testguest.I32Eqz, testguest.If(testguest.Unreachable))
	}
	code := testguest.Code(grow(3, testguest.LiarPages), grow(2, -1), grow(1, testguest.LiarPages+3), grow(1, -1),
		grow(0, testguest.LiarPages+4), testguest.Code(liarAnswer...))
	module := testguest.Liar{Code: map[abi.RequestKind][]byte{abi.ReqCommand: code}}.Bytes()
	for range 2 {
		i := instantiate(t, mustCompile(t, module, service.Limits{MemoryBytes: (testguest.LiarPages+4)<<16 + 100}), nil)
		if err := ask(i, abi.ReqCommand, testguest.LiarSlot); err != nil {
			t.Fatal(err)
		}
		if i.MemoryBytes() != (testguest.LiarPages+4)<<16 {
			t.Errorf("%d bytes", i.MemoryBytes())
		}
	}
	_, err := shared().Compile(t.Context(), "", module, service.Limits{MemoryBytes: (testguest.LiarPages - 1) << 16},
		service.Settings{}, nil)
	if service.KindOf(err) != service.KindBadModule || !strings.Contains(err.Error(), "this service's limit is") {
		t.Errorf("a memory that begins beyond the limit: %v", err)
	}
}

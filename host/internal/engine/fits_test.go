package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/schema"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
)

// withInput gives each command and query of o's module an input schema.
func (o *Options) withInput(t testing.TB, input string) {
	m := *o.Manifest
	m.Encoding = ""
	m.Commands, m.Queries = append(m.Commands[:0:0], m.Commands...), append(m.Queries[:0:0], m.Queries...)
	for i := range m.Commands {
		m.Commands[i].Input = input
	}
	for i := range m.Queries {
		m.Queries[i].Input = input
	}
	set, reasons, err := schema.Compile(&m, func() error { return nil })
	if err != nil || reasons != nil {
		t.Fatal(err, reasons)
	}
	o.Manifest, o.Schemas = &m, set
}

// wantMisfit fails the test unless err points to a place in the data.
func wantMisfit(t testing.TB, err error, pointer string) {
	t.Helper()
	wantKind(t, err, service.KindInvalid)
	var e *service.Error
	if !errors.As(err, &e) || e.Pointer == nil || *e.Pointer != pointer || e.Service != "bank" {
		t.Fatalf("%+v; want the pointer %q", e, pointer)
	}
}

// Data that does not match its schema is refused before the guest runs, and its id stays unused.
func TestDataIsHeldToItsSchema(t *testing.T) {
	e, guests, _ := startBank(t, 1, func(o *Options) { o.withInput(t, `{"type":"integer","minimum":1}`) })
	var calls []string
	guests[0].record = func(format string, args ...any) { calls = append(calls, fmt.Sprintf(format, args...)) }
	_, err := send(e, command("deposit", "alice", "d1", `"7"`))
	wantMisfit(t, err, "")
	_, err = ask(e, service.Query{Service: "bank", Key: "alice", Type: "balance", Data: []byte("0")})
	wantMisfit(t, err, "")
	if len(calls) > 0 {
		t.Errorf("the guest was called: %q", calls)
	}
	if r, err := send(e, command("deposit", "alice", "d1", "7")); err != nil || r.Repeated || r.Version != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if a, err := ask(e, service.Query{Service: "bank", Key: "alice", Type: "balance",
		Data: []byte("1")}); err != nil || string(a.Data) != "7" {
		t.Errorf("%+v, %v", a, err)
	}
}

// A command that was carried out gets its first answer again, even from a module whose schema would
// refuse it. Other data under its id is another command, whether it fits the schema or not.
func TestARepeatedCommandIsNotHeldToANewSchema(t *testing.T) {
	j := openJournal(t, journaltest.NewMemory().Storage())
	o, _ := bankOptions(t, j, 1)
	first := start(t, o)
	if _, err := send(first, command("deposit", "alice", "d1", "7")); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	next, _ := bankOptions(t, j, 1)
	next.withInput(t, `{"type":"integer","minimum":10}`)
	e := start(t, next)
	if r, err := send(e, command("deposit", "alice", "d1", "7")); err != nil || !r.Repeated || r.Version != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	_, err := send(e, command("deposit", "alice", "d1", "8"))
	wantKind(t, err, service.KindIDReused)
	_, err = send(e, command("deposit", "alice", "d2", "7"))
	wantMisfit(t, err, "")
	if _, err := send(e, command("deposit", "alice", "d2", "70")); err != nil {
		t.Error(err)
	}
}

// JSON that a schema does not restrict must still be JSON that every parser reads alike.
func TestWhatASchemaLeavesOpenIsRead(t *testing.T) {
	e, _, _ := startBank(t, 1, func(o *Options) { o.withInput(t, `{"properties":{"a":{"type":"integer"}}}`) })
	for _, data := range []string{`{"x":1,"x":2}`, `{"x":"\ud800"}`, "{\"x\":\"\xff\"}"} {
		_, err := send(e, command("deposit", "alice", "d1", data))
		wantKind(t, err, service.KindInvalid)
	}
}

// A check that takes long ends when its sender goes away.
func TestALongCheckEndsWithItsSender(t *testing.T) {
	e, _, _ := startBank(t, 1, func(o *Options) { o.withInput(t, `{"items":{"type":"integer"}}`) })
	gone := make(chan struct{})
	close(gone)
	c := command("deposit", "alice", "d1", "["+strings.Repeat("1,", 300_000)+"1]")
	c.Gone = gone
	_, err := send(e, c)
	wantKind(t, err, service.KindCanceled)
	_, err = send(e, command("deposit", "alice", "d2", "["+strings.Repeat("1,", 300_000)+`"1"]`))
	wantMisfit(t, err, "/300000")
}

// The data of programs that embed the host is checked by the gateway's rules for all JSON, even
// without a schema. With a carrier, the sender has made this check.
func TestDataIsJSONThatAllReadAlike(t *testing.T) {
	e, guests, _ := startBank(t, 1, func(o *Options) {
		m := *o.Manifest
		m.Encoding = ""
		o.Manifest = &m
	})
	var calls []string
	guests[0].record = func(format string, args ...any) { calls = append(calls, fmt.Sprintf(format, args...)) }
	for _, data := range []string{`{"a":1,"a":2}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":`, `7 8`} {
		_, err := send(e, command("deposit", "alice", "d1", data))
		wantKind(t, err, service.KindInvalid)
		_, err = ask(e, service.Query{Service: "bank", Key: "alice", Type: "balance", Data: []byte(data)})
		wantKind(t, err, service.KindInvalid)
	}
	if len(calls) > 0 {
		t.Errorf("the guest was called: %q", calls)
	}
	if r, err := send(e, command("deposit", "alice", "d1", "7")); err != nil || r.Repeated || r.Version != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Programs that embed the host cannot send repeated names of metadata either.
func TestNamesOfMetadataAreThereOnce(t *testing.T) {
	e, _, _ := startBank(t, 1, nil)
	c := command("deposit", "alice", "d1", "7")
	c.Metadata = c.Metadata.AppendPair("Tenant", "a").AppendPair("tenant", "b")
	_, err := send(e, c)
	wantKind(t, err, service.KindInvalid)
	c.Metadata = abi.Metadata(nil).AppendPair("tenant", "a").AppendPair("tenants", "b")
	if r, err := send(e, c); err != nil || r.Version != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

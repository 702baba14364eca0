// Package guesttest tests services with tables: given some events, when a command comes, then
// the service emits these events and replies, or rejects the command.
//
//	guesttest.Given(t, bank.Service, "alice", bank.Opened{"Alice"}).
//		When("deposit", bank.Deposit{100}).Then(bank.Deposited{100}).Reply(bank.Balance{100}).
//		When("withdraw", bank.Withdraw{500}).Rejected("insufficient_funds")
//
// Given runs the service natively, in the test's own process. GivenOn runs the same table on a
// [Driver], for example against the compiled module.
//
// GivenJSON and GivenExport take events as the journal has them, under the names and in the form in
// which earlier builds wrote them:
//
//	guesttest.GivenJSON(t, hall.Service, "gala", "reserved", `{"seat":"A1"}`).
//		AndJSON("reserved", `{"seat":"A2"}`).
//		When("hold", hall.Hold{Seats: []string{"B1"}}).Then(hall.Held{Seats: []string{"B1"}})
//	guesttest.GivenExport(t, hall.Service, "testdata/production.jsonl")
//
// Each When also checks what the host relies on:
//   - The state after the command is the state that the events give, when all of them are
//     replayed, and when a snapshot at any version is followed by the rest.
//   - A refusal leaves the state unchanged.
//   - The same command on the same history gives the same bytes again.
//
// So a handler that changes state without an event, reads a clock, or depends on the order of a
// map fails its test. In a long history, snapshots are tried at some versions only, the last
// ones among them, so that the time of a When is proportional to the history.
//
// Data that does not fit the schema of its command or query is refused before the handler decides, as a host
// refuses it: Rejected("bad_command") and Rejected("bad_query") assert that.
package guesttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/jsonplan"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/kit"
)

// Driver runs a service. Exchange takes request frames and returns response frames, which are
// valid until the next call. An error means that the guest broke, for example by a trap.
type Driver interface {
	Exchange(request []byte) (response []byte, err error)
}

// native runs a service in this process.
type native struct{ guest kit.Guest }

func (n native) Exchange(request []byte) ([]byte, error) { return n.guest.Exchange(request), nil }

// Native returns a driver that runs the service in this process.
func Native[S any](s *guest.Service[S]) Driver { return native{kit.Of(s)} }

// defaultTime is the time of commands until [Case.At] sets another.
var defaultTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Given starts a case natively: an entity with a key and a history of events.
func Given[S any](t testing.TB, s *guest.Service[S], key string, events ...guest.Event[S]) *Case[S] {
	t.Helper()
	return GivenOn(t, Native(s), s, key, events...)
}

// GivenOn starts a case in which the driver runs the service.
func GivenOn[S any](t testing.TB, d Driver, s *guest.Service[S], key string, events ...guest.Event[S]) *Case[S] {
	t.Helper()
	c := newCase(t, d, s, key)
	return c.And(events...)
}

// newCase is a case without events.
func newCase[S any](t testing.TB, d Driver, s *guest.Service[S], key string) *Case[S] {
	t.Helper()
	c := &Case[S]{t: t, driver: d, service: kit.Of(s), key: key, now: defaultTime, id: "guesttest",
		seed: [abi.SeedSize]byte{1, 2, 3, 4}}
	c.manifest = c.describe()
	return c
}

// Case is an entity under test. Its methods return the case, so that calls can be chained.
type Case[S any] struct {
	t        testing.TB
	driver   Driver
	service  kit.Guest
	manifest manifest
	key      string
	now      time.Time
	id       string
	seed     [abi.SeedSize]byte
	metadata guest.Metadata
	base     base // what the history starts from
	history  []stored
	plans    jsonplan.Maker
	step     string // the command or query that assertions are about
	answer   answer
}

// base is the snapshot from which an entity is rebuilt; the zero value is none.
type base struct {
	version uint64
	state   []byte
	earlier bool
	schema  uint16 // index in the manifest's earlier schemas
}

// recorded is an event as the service writes it.
type recorded struct {
	number uint16
	body   string
}

// stored is an event of the history, as the journal has it.
type stored struct {
	recorded
	time     uint64 // of its command, in nanoseconds since 1970
	metadata string // what the service gave it, encoded
}

// manifest is the part of a manifest that a case needs.
type manifest struct {
	Service           string
	StateSchema       uint32   `json:"state_schema"`
	EarlierSchemas    []uint32 `json:"earlier_schemas"`
	Commands, Queries []named
	Events            []named

	stored *abi.Stored // what it says of stored events and snapshots, as a host reads it
}

// named is a type in a manifest. Only events have aliases, and only commands and queries have an input.
type named struct {
	Name    string
	Aliases []string
	Input   json.RawMessage
}

// answer is the answer to a command or a query.
type answer struct {
	kind     abi.ResponseKind
	events   []recorded
	metadata []string // of the events, encoded
	reply    string
	code     string
	message  string
}

// At sets the time of the commands and queries that follow, and of the events that [Case.And] and
// [Case.AndJSON] add from now on.
func (c *Case[S]) At(now time.Time) *Case[S] {
	c.now = now
	return c
}

// ID sets the id of the commands that follow.
func (c *Case[S]) ID(id string) *Case[S] {
	c.id = id
	return c
}

// Seed sets the seed of the commands that follow.
func (c *Case[S]) Seed(seed [16]byte) *Case[S] {
	c.seed = seed
	return c
}

// With adds metadata to the commands that follow.
func (c *Case[S]) With(name, value string) *Case[S] {
	c.metadata = c.metadata.AppendPair(name, value)
	return c
}

// runs is how often a command is tried. Natively the order of a map differs from run to run, so
// that a handler that depends on it fails.
const runs = 4

// When sends a command to the service. The events that it emits are added to the history.
func (c *Case[S]) When(command string, data any) *Case[S] {
	c.t.Helper()
	c.step = command
	number, ok := find(c.manifest.Commands, command)
	if !ok {
		c.t.Fatalf("the service has no command %q", command)
	}
	body := c.encode(data)
	unfit := fits(c.manifest.Commands[number].Input, body)
	var after string
	for i := range runs {
		before := c.rebuild()
		got := c.exchange(abi.AppendCommand(nil, 0, number, c.version(len(c.history)), c.instant(),
			&c.seed, c.id, c.metadata, body))
		if unfit != nil {
			c.answer = refusedBy(unfit, abi.CodeBadCommand, got)
			return c
		}
		if got.kind == abi.RespFault {
			c.answer = got
			return c // the host would drop the state
		}
		state := c.snapshot()
		if got.kind == abi.RespReject && state != before {
			c.t.Errorf("%s was rejected (%s) and changed the state:\n  before %s\n  after  %s", command, got.code,
				before, state)
		}
		if i > 0 && (!reflect.DeepEqual(got, c.answer) || state != after) {
			c.t.Errorf("%s is not deterministic:\n  once  %s %s\n  again %s %s", command, c.show(c.answer), after,
				c.show(got), state)
		}
		c.answer, after = got, state
	}
	for i, e := range c.answer.events {
		c.history = append(c.history, stored{e, c.instant(), c.answer.metadata[i]})
	}
	if replayed := c.rebuild(); replayed != after {
		c.t.Errorf(
			"%s changed the state without an event, or Apply is not all of what it did:\n  live     %s\n  replayed %s",
			command, after, replayed)
		return c
	}
	c.restore(command, after)
	return c
}

// maxCuts is the number of versions of a history at which snapshots are tried. Up to this
// length, all versions of a history are tried.
const maxCuts = 32

// cuts returns the versions at which to try snapshots of a history of n events: all, or some
// that are spread over the history and the last ones.
func cuts(n int) (places []int) {
	const last = maxCuts / 4
	if n > maxCuts {
		const spread = maxCuts - last
		for i := range spread {
			places = append(places, i*(n-last)/spread)
		}
	}
	for i := max(0, n-max(last, maxCuts-len(places))); i < n; i++ {
		places = append(places, i)
	}
	return places
}

// restore compares the state that all events give with the states that snapshots and the rest of the
// events give.
func (c *Case[S]) restore(what, after string) {
	c.t.Helper()
	all, places := len(c.history), cuts(len(c.history))
	states := make([]string, len(places), len(places)+1)
	c.hydrate(0, nil)
	version := 0
	for i, cut := range places {
		c.apply(version, cut)
		version, states[i] = cut, c.snapshot()
	}
	places, states = append(places, all), append(states, after)
	for i, cut := range places[:len(places)-1] {
		// To the end, or, which is equivalent, to the version of the next snapshot.
		to := len(places) - 1
		if all > maxCuts {
			to = i + 1
		}
		c.hydrate(cut, []byte(states[i]))
		c.apply(cut, places[to])
		if got := c.snapshot(); got != states[to] {
			c.t.Errorf(
				"%s: a snapshot after %d events (%s) loses something that later events need:\n  live     %s\n  "+
					"restored %s",
				what, cut, states[i], states[to], got)
			return
		}
	}
}

// Query sends a query to the service. Reply and Rejected then assert its answer.
func (c *Case[S]) Query(query string, data any) *Case[S] {
	c.t.Helper()
	c.step = query
	number, ok := find(c.manifest.Queries, query)
	if !ok {
		c.t.Fatalf("the service has no query %q", query)
	}
	before, body := c.rebuild(), c.encode(data)
	c.answer = c.exchange(abi.AppendQuery(nil, 0, number, c.version(len(c.history)), c.instant(), body))
	if err := fits(c.manifest.Queries[number].Input, body); err != nil {
		c.answer = refusedBy(err, abi.CodeBadQuery, c.answer)
		return c
	}
	if c.answer.kind != abi.RespFault {
		if after := c.snapshot(); after != before {
			c.t.Errorf("query %s changed the state:\n  before %s\n  after  %s", query, before, after)
		}
	}
	return c
}

// fits checks data against the schema of its command or query, as the host does.
func fits(schema json.RawMessage, data []byte) error {
	switch {
	case len(schema) == 0:
		return nil
	case len(data) > 0:
		return jsonplan.Fits(string(schema), data)
	}
	err := jsonplan.Fits(string(schema), []byte("{}"))
	if err != nil && jsonplan.Fits(string(schema), []byte("null")) == nil {
		return nil
	}
	return err
}

// refusedBy is the answer to data that does not fit its schema: the guest's own refusal of such data, or the
// one that the host would give before the guest runs.
func refusedBy(unfit error, code string, guest answer) answer {
	if guest.kind == abi.RespReject && guest.code == code {
		return guest
	}
	return answer{kind: abi.RespReject, code: code, message: unfit.Error()}
}

// Then asserts that the command emitted exactly these events.
func (c *Case[S]) Then(events ...guest.Event[S]) *Case[S] {
	c.t.Helper()
	want := answer{kind: abi.RespReply, reply: c.answer.reply}
	for _, e := range events {
		want.events = append(want.events, c.record(e))
	}
	if c.answer.kind != abi.RespReply || !reflect.DeepEqual(want.events, c.answer.events) {
		c.t.Errorf("%s:\n  got  %s\n  want %s", c.step, c.show(c.answer), c.show(want))
	}
	return c
}

// Carries asserts a value of an emitted event's metadata. Events are numbered from 0.
func (c *Case[S]) Carries(event int, name, want string) *Case[S] {
	c.t.Helper()
	if event >= len(c.answer.metadata) {
		c.t.Errorf("%s: there is no event %d in %s", c.step, event, c.show(c.answer))
		return c
	}
	if got, _ := abi.Metadata(c.answer.metadata[event]).Get(name); string(got) != want {
		c.t.Errorf("%s: event %d carries %s %q, want %q", c.step, event, name, got, want)
	}
	return c
}

// Reply asserts the reply to the command or query.
func (c *Case[S]) Reply(want any) *Case[S] {
	c.t.Helper()
	w := string(c.encode(want))
	if c.answer.kind != abi.RespReply || c.answer.reply != w {
		c.t.Errorf("%s:\n  got  %s\n  want reply %s", c.step, c.show(c.answer), w)
	}
	return c
}

// ReplyAs decodes the reply to the command or query into what v points to, for assertions of the test's
// own. A refusal fails the test.
func (c *Case[S]) ReplyAs(v any) *Case[S] {
	c.t.Helper()
	if c.answer.kind != abi.RespReply {
		c.t.Fatalf("%s:\n  got  %s\n  want a reply", c.step, c.show(c.answer))
	}
	c.capture("the reply", c.answer.reply, v)
	return c
}

// Emitted asserts that the command emitted exactly one event for each pointer, of the types that they
// point to, and decodes the events there.
func (c *Case[S]) Emitted(events ...any) *Case[S] {
	c.t.Helper()
	if c.answer.kind != abi.RespReply || len(c.answer.events) != len(events) {
		c.t.Fatalf("%s:\n  got  %s\n  want %d events", c.step, c.show(c.answer), len(events))
	}
	for i, v := range events {
		p := c.pointer(v)
		number, ok := c.service.EventNumber(p.Elem().Interface())
		switch {
		case !ok:
			c.t.Fatalf("%s is not registered with Events", p.Type().Elem())
		case number != c.answer.events[i].number:
			c.t.Fatalf("%s:\n  got  %s\n  want event %d to be %s", c.step, c.show(c.answer), i,
				c.manifest.Events[number].Name)
		}
		c.capture(fmt.Sprint("event ", i), c.answer.events[i].body, v)
	}
	return c
}

// pointer is v, which must point to a value.
func (c *Case[S]) pointer(v any) reflect.Value {
	c.t.Helper()
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		c.t.Fatalf("%s: %T is not a pointer to where a value goes", c.step, v)
	}
	return p
}

// capture decodes JSON into what v points to, in place of what was there.
func (c *Case[S]) capture(what, text string, v any) {
	c.t.Helper()
	p := c.pointer(v)
	p.Elem().SetZero()
	if err := c.plan(p.Type().Elem()).Decode([]byte(text), p.UnsafePointer()); err != nil {
		c.t.Fatalf("%s: %s %s is no %s: %v", c.step, what, text, p.Type().Elem(), err)
	}
}

// Rejected asserts that the service refused with this code.
func (c *Case[S]) Rejected(code string) *Case[S] {
	c.t.Helper()
	return c.refused(abi.RespReject, "rejected", code)
}

// Fault asserts that the handler failed with this code: "panic", "error", "error_after_emit"
// or "goroutine_leak".
func (c *Case[S]) Fault(code string) *Case[S] {
	c.t.Helper()
	return c.refused(abi.RespFault, "fault", code)
}

func (c *Case[S]) refused(kind abi.ResponseKind, what, code string) *Case[S] {
	c.t.Helper()
	if c.answer.kind != kind || c.answer.code != code {
		c.t.Errorf("%s:\n  got  %s\n  want %s (%s)", c.step, c.show(c.answer), what, code)
	}
	return c
}

// State calls check with the state after all events.
func (c *Case[S]) State(check func(*S)) *Case[S] {
	c.t.Helper()
	text := c.rebuild()
	var s S
	if err := c.plan(reflect.TypeFor[S]()).Decode([]byte(text), reflect.ValueOf(&s).UnsafePointer()); err != nil {
		c.t.Fatalf("the state cannot be decoded: %v", err)
	}
	check(&s)
	return c
}

// rebuild opens the entity in slot 0, applies all events and returns its state.
func (c *Case[S]) rebuild() string {
	c.t.Helper()
	c.hydrate(0, nil)
	c.apply(0, len(c.history))
	return c.snapshot()
}

// hydrate opens the entity in slot 0: with a snapshot after n events of the history, or, if that is
// nil, with what the history starts from.
func (c *Case[S]) hydrate(n int, snapshot []byte) {
	c.t.Helper()
	var open []byte
	switch {
	case snapshot != nil:
		open = abi.AppendOpen(nil, 0, c.version(n), c.key, snapshot)
	case c.base.earlier:
		open = abi.AppendOpenEarlier(nil, 0, c.base.version, c.key, c.base.state, c.base.schema)
	default:
		open = abi.AppendOpen(nil, 0, c.base.version, c.key, c.base.state)
	}
	c.quiet(open, n)
}

// instant is the time of the case, as it is in frames.
func (c *Case[S]) instant() uint64 { return uint64(c.now.UnixNano()) }

// version is the entity's version after n events of the history.
func (c *Case[S]) version(n int) uint64 { return c.base.version + uint64(n) }

// maxRequest is about how many bytes of events go into one request, the same as in a host.
const maxRequest = 256 << 10

// apply applies the events from one version to another.
func (c *Case[S]) apply(from, to int) {
	c.t.Helper()
	var request []byte
	for i, e := range c.history[from:to] {
		request = abi.AppendApply(request, 0, e.number, c.version(from+i+1), e.time, []byte(e.body),
			guest.Metadata(e.metadata))
		if len(request) > maxRequest || from+i+1 == to {
			c.quiet(request, from+i+1)
			request = request[:0]
		}
	}
}

// quiet sends frames that are answered only if the entity cannot be rebuilt.
func (c *Case[S]) quiet(request []byte, version int) {
	c.t.Helper()
	for _, r := range c.frames(request) {
		c.t.Fatalf("rebuilding the entity from %d events: %s", version, c.show(c.collect([]abi.Response{r})))
	}
}

func (c *Case[S]) snapshot() string {
	c.t.Helper()
	frames := c.frames(abi.AppendSnapshotRequest(nil, 0))
	if len(frames) != 1 || frames[0].Kind != abi.RespSnapshot {
		c.t.Fatalf("the state has no snapshot: %s", c.show(c.collect(frames)))
	}
	body, err := abi.DecodeBody(&frames[0])
	if err != nil {
		c.t.Fatal(err)
	}
	return string(body)
}

func (c *Case[S]) exchange(request []byte) answer {
	c.t.Helper()
	return c.collect(c.frames(request))
}

// frames sends a request and returns a copy of the response's frames, without log frames.
func (c *Case[S]) frames(request []byte) []abi.Response {
	c.t.Helper()
	out, err := c.driver.Exchange(request)
	if err != nil {
		c.t.Fatalf("%s: the guest broke: %v", c.step, err)
	}
	out = bytes.Clone(out)
	var frames []abi.Response
	for len(out) > 0 {
		r, rest, err := abi.DecodeResponse(out)
		if err != nil {
			c.t.Fatal(err)
		}
		if r.Kind != abi.RespLog {
			frames = append(frames, r)
		}
		out = rest
	}
	return frames
}

// collect joins the frames of one answer.
func (c *Case[S]) collect(frames []abi.Response) (a answer) {
	c.t.Helper()
	for i := range frames {
		r := &frames[i]
		a.kind = r.Kind
		var err error
		switch r.Kind {
		case abi.RespEvent:
			var e abi.Event
			e, err = abi.DecodeEvent(r)
			a.events = append(a.events, recorded{r.Type, string(e.Body)})
			a.metadata = append(a.metadata, string(e.Metadata))
		case abi.RespReject, abi.RespFault:
			var x abi.Refusal
			x, err = abi.DecodeRefusal(r)
			a.code, a.message, a.events = string(x.Code), string(x.Message), nil
		default:
			var body abi.Body
			body, err = abi.DecodeBody(r)
			a.reply = string(body)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	return a
}

func (c *Case[S]) describe() (m manifest) {
	c.t.Helper()
	a := c.exchange(abi.AppendDescribe(nil))
	if a.kind != abi.RespDescription {
		c.t.Fatalf("the service has no manifest: %s", c.show(a))
	}
	if err := json.Unmarshal([]byte(a.reply), &m); err != nil {
		c.t.Fatalf("the manifest is not JSON: %v", err)
	}
	reads := abi.Manifest{StateSchema: m.StateSchema, EarlierSchemas: m.EarlierSchemas}
	for _, e := range m.Events {
		reads.Events = append(reads.Events, abi.EventType{Name: e.Name, Aliases: e.Aliases})
	}
	m.stored = abi.NewStored(&reads)
	return m
}

func find(list []named, name string) (uint16, bool) {
	for i, e := range list {
		if e.Name == name {
			return uint16(i), true
		}
	}
	return 0, false
}

func (c *Case[S]) record(e guest.Event[S]) recorded {
	c.t.Helper()
	number, ok := c.service.EventNumber(e)
	if !ok {
		c.t.Fatalf("event %T is not registered with Events", e)
	}
	return recorded{number, string(c.encode(e))}
}

func (c *Case[S]) plan(t reflect.Type) *jsonplan.Plan {
	c.t.Helper()
	p, err := c.plans.Make(t)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// encode returns the JSON of a value, as the service writes it.
func (c *Case[S]) encode(v any) []byte {
	c.t.Helper()
	if v == nil {
		return nil
	}
	p := reflect.New(reflect.TypeOf(v))
	p.Elem().Set(reflect.ValueOf(v))
	b, err := c.plan(p.Type().Elem()).Append(nil, p.UnsafePointer())
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// show formats an answer for people.
func (c *Case[S]) show(a answer) string {
	switch a.kind {
	case abi.RespReject:
		return fmt.Sprintf("rejected (%s): %s", a.code, a.message)
	case abi.RespFault:
		return fmt.Sprintf("fault (%s): %s", a.code, a.message)
	}
	if len(a.events) == 0 {
		return "no events, reply " + a.reply
	}
	var parts []string
	for _, e := range a.events {
		name := fmt.Sprint("event ", e.number)
		if int(e.number) < len(c.manifest.Events) {
			name = c.manifest.Events[e.number].Name
		}
		parts = append(parts, name+e.body)
	}
	return strings.Join(parts, " ") + ", reply " + a.reply
}

package sandbox

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Bounds of one request with many frames.
const (
	chunkBytes  = 256 << 10
	chunkFrames = 4096
	// chunkEvents is the maximum number of events that a guest gets at once during a hydration. A guest that
	// goes on after an event that it cannot apply fails within this number of events.
	chunkEvents = 64
	// chunkFuel is the maximum fuel that the commands of these events took together. One event may exceed it.
	chunkFuel = 16_000_000
)

// keepRequest is the size, in bytes, of the largest request buffer that is kept for the next call.
const keepRequest = 1 << 20

// Exchange sends raw request frames and returns a copy of the raw response, which the caller owns. It checks
// the range of the response, but not its frames. The clock and the seed are those of the first frame, if it
// has them.
func (i *Instance) Exchange(ctx context.Context, request []byte) ([]byte, error) {
	var now journal.UnixNano
	var seed [abi.SeedSize]byte
	if r, _, err := abi.DecodeRequest(request); err == nil {
		switch r.Kind {
		case abi.ReqCommand:
			if c, err := abi.DecodeCommand(&r); err == nil {
				seed = c.Seed
			}
			now = journal.UnixNano(r.Time)
		case abi.ReqQuery:
			now = journal.UnixNano(r.Time)
		}
	}
	if err := i.usable(); err != nil {
		return nil, err
	}
	frames := uint32(len(request) / abi.RequestHeaderSize)
	if err := i.begin(ctx, &scene{budget: i.framesBudget(frames), now: now, seed: seed}); err != nil {
		return nil, err
	}
	defer i.finish()
	answer, err := i.exchange(request, max(i.limits.OutcomeBytes, maxDescription), false)
	if err != nil {
		return nil, i.failed(err)
	}
	return answer, nil
}

// usable returns an error if the instance must not be called.
func (i *Instance) usable() error {
	if i.broken {
		return &service.Error{Service: i.name, Kind: service.KindUnavailable,
			Message: "the sandbox is broken by an earlier failure and has not been reset"}
	}
	return nil
}

// failed adds the fuel that a failed call has spent to its error.
func (i *Instance) failed(err error) error {
	if e, ok := err.(*service.Error); ok {
		e.Fuel = uint64(i.meter.spent())
	}
	return err
}

// Hydrate makes an entity resident: from a snapshot, if there is one, and the events after it, which events
// yields in order. More events may follow with Apply. They go to the guest in requests of bounded size.
// When yield returns, the event has been copied. If yield returns an error, no more events may be yielded,
// and Hydrate returns that error. If events itself fails, Hydrate returns its error and the instance stays
// usable, but the entity must be dropped or hydrated again.
//
// For the fuel of a request see [Instance.Apply]. There is no time limit; only ctx ends a request.
//
// KindFault means that the guest could not take the snapshot or an event. Then the instance is usable, and
// the entity is not resident. If an event failed, or one of several during a trap, the error is a
// [*service.ReplayError]. The snapshot travels with the first events, so after a trap in that request the
// cause is unknown, and the error is not a ReplayError.
func (i *Instance) Hydrate(
	ctx context.Context, slot uint32, key service.Key, from service.GuestSnapshot, events service.GuestEvents,
) error {
	c := chunk{instance: i, slot: slot, frames: 1}
	if from.Earlier {
		c.b = abi.AppendOpenEarlier(i.request[:0], slot, uint64(from.Version), string(key), from.State, from.Schema)
	} else {
		c.b = abi.AppendOpen(i.request[:0], slot, uint64(from.Version), string(key), from.State)
	}
	if from.State != nil {
		c.opens = saturate(startCalls-1, i.limits.Fuel) + saturate(int64(len(from.State)), snapshotFuel)
	}
	return c.replay(ctx, events)
}

// Apply continues a hydration with further events. Errors are as for [Instance.Hydrate].
//
// A request may spend the limit fuel, plus the limit event_fuel for each of its events, plus four times what
// each of their commands spent, since a command applies its own events, too. So an entity that could be
// written can be hydrated, even by a build that needs somewhat more fuel.
func (i *Instance) Apply(ctx context.Context, slot uint32, events service.GuestEvents) error {
	c := chunk{instance: i, slot: slot, b: i.request[:0]}
	return c.replay(ctx, events)
}

// chunk is a request of Open and Apply frames under construction.
type chunk struct {
	instance    *Instance
	slot        uint32
	b           []byte
	frames      uint32          // in the request
	events      uint32          // the events among them, at the end
	first, last service.Version // versions of the events
	fuel        int64           // for the events
	opens       int64           // for the Open beyond the limit; 0 without a snapshot
}

// snapshotFuel is the fuel that a guest may spend on each byte of a snapshot. Parsers of text need a fraction
// of that.
const snapshotFuel = 256

// fuelMargin is how many times the fuel of its command the replay of an event may spend.
const fuelMargin = 4

// replay sends events in requests, together with what is in the chunk already.
func (c *chunk) replay(ctx context.Context, events service.GuestEvents) error {
	i := c.instance
	var failed error                            // of the guest
	finding := fair.StartLap(fair.Now(), false) // the host's work to find the events
	err := events(func(e service.GuestEvent) error {
		fuel := c.mayTake(&e)
		if c.full(&e, fuel) {
			i.hostWork(finding)
			if failed = c.send(ctx); failed != nil {
				return failed
			}
			finding, fuel = fair.StartLap(fair.Now(), false), c.mayTake(&e)
		}
		c.add(&e, fuel)
		return nil
	})
	if failed != nil {
		return failed
	}
	i.hostWork(finding)
	if err != nil || c.frames == 0 {
		i.keep(c.b)
		return err
	}
	return c.send(ctx)
}

// full reports whether the request must be sent before e is added, which may spend fuel.
func (c *chunk) full(e *service.GuestEvent, fuel int64) bool {
	size := abi.RequestHeaderSize + 16 + len(e.Data) + len(e.Metadata)
	return c.events >= chunkEvents || c.frames > 0 && len(c.b)+size > chunkBytes ||
		c.events > 0 && c.fuel+fuel > fuelMargin*chunkFuel
}

func (c *chunk) add(e *service.GuestEvent, fuel int64) {
	c.b = abi.AppendApply(c.b, c.slot, e.Type, uint64(e.Version), uint64(e.Time), e.Data, e.Metadata)
	if c.events == 0 {
		c.first = e.Version
	}
	c.fuel += fuel
	c.last = e.Version
	c.frames++
	c.events++
}

// mayTake is the fuel that an event adds to the request: none if the request has an event of the same
// command.
func (c *chunk) mayTake(e *service.GuestEvent) int64 {
	if e.Again && c.events > 0 {
		return 0
	}
	return saturate(fuelMargin, int64(min(e.Fuel, 1<<60)))
}

// send sends the request and empties the chunk.
func (c *chunk) send(ctx context.Context) error {
	i := c.instance
	i.keep(c.b)
	q := i.question(abi.ReqApply, c.slot)
	q.frames = c.frames
	// The clock is the same in all chunks, so that replay does not depend on how events are grouped.
	var a answer
	err := i.ask(ctx, c.b, &q, &scene{budget: i.replayBudget(c)}, &a)
	opened := c.frames - c.events // number of frames before the first event
	switch {
	case err == nil && a.terminal != abi.RespFault:
		c.b, c.frames, c.events, c.fuel, c.opens = c.b[:0], 0, 0, 0, 0
		return nil
	case err != nil && c.events > 0 && c.opens == 0:
		return &service.ReplayError{First: c.first, Last: c.last, Err: err}
	case err != nil:
		return err
	case a.faulted < opened:
		return i.fault(a.refusal)
	}
	at := c.first + service.Version(a.faulted-opened)
	return &service.ReplayError{First: at, Last: at, Err: i.fault(a.refusal)}
}

// fault makes the error for a Fault that the guest has reported.
func (i *Instance) fault(x abi.Refusal) error {
	return i.failed(refusal(service.KindFault, i.name, x))
}

// Handle runs a command. A rejection by the domain is an outcome, not an error. KindFault means that the
// handler failed: the instance is usable, but the entity must be hydrated again before it is used. After any
// other error the instance is broken, unless the guest was not entered.
//
// The slices of the outcome refer to copies of about their size that nobody else uses.
func (i *Instance) Handle(ctx context.Context, c service.GuestCall) (service.Outcome, error) {
	if len(c.Data) > i.limits.CommandBytes {
		return service.Outcome{}, service.Errorf(service.KindTooLarge,
			"the command's data has %d bytes; the limit is %d", len(c.Data), i.limits.CommandBytes)
	}
	b := abi.AppendCommand(i.request[:0], c.Slot, c.Type, uint64(c.Version), uint64(c.Time), &c.Seed, string(c.ID),
		c.Metadata, c.Data)
	i.keep(b)
	q := i.question(abi.ReqCommand, c.Slot)
	on := scene{budget: i.callBudget(), now: c.Time, seed: c.Seed, gone: c.Gone, until: c.Deadline}
	return i.outcome(ctx, b, &q, &on)
}

// Query reads state. Its outcome has no events. Errors are as for [Instance.Handle].
func (i *Instance) Query(ctx context.Context, c service.GuestQuery) (service.Outcome, error) {
	if len(c.Data) > i.limits.CommandBytes {
		return service.Outcome{}, service.Errorf(service.KindTooLarge, "the query's data has %d bytes; the limit is %d",
			len(c.Data), i.limits.CommandBytes)
	}
	b := abi.AppendQuery(i.request[:0], c.Slot, c.Type, uint64(c.Version), uint64(c.Time), c.Data)
	i.keep(b)
	q := i.question(abi.ReqQuery, c.Slot)
	return i.outcome(ctx, b, &q, &scene{budget: i.callBudget(), now: c.Time, gone: c.Gone, until: c.Deadline})
}

func (i *Instance) outcome(ctx context.Context, b []byte, q *question, on *scene) (service.Outcome, error) {
	var a answer
	if err := i.ask(ctx, b, q, on, &a); err != nil {
		return service.Outcome{}, err
	}
	fuel := uint64(i.meter.spent())
	switch a.terminal {
	case abi.RespReject:
		return service.NewRejection(refusal(service.KindRejected, i.name, a.refusal), fuel), nil
	case abi.RespFault:
		return service.Outcome{}, i.fault(a.refusal)
	}
	return service.NewOutcome(a.events, a.body, fuel), nil
}

// Snapshot encodes an entity's state, in up to [journal.MaxSnapshot] bytes. KindFault means that the guest
// cannot encode it, or that the state is larger; the instance is usable.
func (i *Instance) Snapshot(ctx context.Context, slot uint32) ([]byte, error) {
	b := abi.AppendSnapshotRequest(i.request[:0], slot)
	i.keep(b)
	q := i.question(abi.ReqSnapshot, slot)
	var a answer
	on := scene{budget: i.callBudget(), maxBytes: max(maxSnapshotAnswer, i.limits.OutcomeBytes), fits: true}
	if err := i.ask(ctx, b, &q, &on, &a); err != nil {
		return nil, err
	}
	if a.terminal == abi.RespFault {
		return nil, i.fault(a.refusal)
	}
	if len(a.body) > journal.MaxSnapshot {
		return nil, i.failed(tooLarge(i.name, len(a.body)))
	}
	return a.body, nil
}

// maxSnapshotAnswer is the maximum size of the answer to Snapshot, in bytes: the largest state that can be
// kept, its frame, and logs.
const maxSnapshotAnswer = journal.MaxSnapshot + 128<<10

// CodeStateTooLarge is the code of a Fault that the host reports on behalf of a guest whose state is larger
// than a snapshot may be.
const CodeStateTooLarge = "state_too_large"

func tooLarge(name service.Name, bytes int) *service.Error {
	e := service.Errorf(service.KindFault, "the state takes %d bytes as a snapshot; it may have %d", bytes,
		journal.MaxSnapshot)
	e.Service, e.Code = name, CodeStateTooLarge
	return e
}

// Drop makes the guest forget entities.
func (i *Instance) Drop(ctx context.Context, slots ...uint32) error {
	for len(slots) > 0 {
		some := slots[:min(len(slots), chunkFrames)]
		slots = slots[len(some):]
		b := i.request[:0]
		for _, s := range some {
			b = abi.AppendDrop(b, s)
		}
		i.keep(b)
		q := i.question(abi.ReqDrop, 0)
		q.slots, q.frames = some, uint32(len(some))
		if err := i.ask(ctx, b, &q, &scene{budget: i.framesBudget(q.frames)}, new(answer)); err != nil {
			return err
		}
	}
	return nil
}

// maxDescription is the maximum size of the answer to Describe, in bytes: a manifest, its frame, and logs.
const maxDescription = abi.MaxManifestSize + 128<<10

// describe asks for the manifest.
func (i *Instance) describe(ctx context.Context) ([]byte, error) {
	b := abi.AppendDescribe(i.request[:0])
	i.keep(b)
	q := i.question(abi.ReqDescribe, 0)
	var a answer
	if err := i.ask(ctx, b, &q, &scene{budget: i.startBudget(), maxBytes: maxDescription}, &a); err != nil {
		return nil, err
	}
	return a.body, nil
}

func (i *Instance) question(kind abi.RequestKind, slot uint32) question {
	q := question{kind: kind, slot: slot, frames: 1, events: i.program.module.Manifest.Events, limits: &i.limits}
	if q.typ = i.program.module.Manifest.Encoding; q.typ == abi.EncodingJSON {
		q.typ, q.isJSON = "", true
	}
	return q
}

// ask sends a request, then checks and compacts the answer. All of this is charged to the service. If there
// is an error, a stays empty. a and on are pointers because copying them takes as long as many guests run.
func (i *Instance) ask(ctx context.Context, b []byte, q *question, on *scene, a *answer) error {
	if err := i.usable(); err != nil {
		return err
	}
	if err := i.begin(ctx, on); err != nil {
		return err
	}
	defer i.finish()
	response, err := i.exchange(b, max(on.maxBytes, i.limits.OutcomeBytes), on.fits)
	if err != nil {
		return i.failed(err)
	}
	if err := i.checked(response, q, a); err != nil {
		i.broken = true
		return i.failed(err)
	}
	a.compact()
	return nil
}

// checked checks an answer. Its Log frames are charged like calls of the host's log function, so the call can
// run out of fuel here as it can in the guest.
func (i *Instance) checked(response []byte, q *question, a *answer) (err error) {
	defer func() {
		i.meter.stop()
		switch bug := recover().(type) {
		case nil:
		case *hostTrap:
			*a, err = answer{}, i.classify(bug)
		default:
			panic(bug)
		}
	}()
	if violation := checkAnswer(response, q, a, func(level abi.LogLevel, text []byte) {
		i.spend(fuelHostCall)
		i.logLine(level, text)
	}); violation != nil {
		violation.Service = i.name
		return violation
	}
	a.size = len(response)
	return nil
}

// keep keeps the buffer of a request for the next one, unless the buffer is larger than calls usually need or
// does not fit the budget.
func (i *Instance) keep(b []byte) {
	if cap(b) <= keepRequest && i.takeBuffer(cap(b)) {
		i.request = b[:0]
	}
}

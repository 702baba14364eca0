package sandbox

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Bounds of one request that carries many frames.
const (
	chunkBytes  = 256 << 10
	chunkFrames = 4096
)

// keepRequest is the largest request buffer that is kept for the next call.
const keepRequest = 1 << 20

// Exchange sends raw request frames and returns the raw response, a copy that
// the caller owns. Only the range of the response is checked, not its frames. The
// clock and the seed are those of the first frame that has them.
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
	answer, err := i.exchange(request, max(i.limits.OutcomeBytes, maxDescription))
	if err != nil {
		return nil, i.failed(err)
	}
	return answer, nil
}

// usable fails if the instance must not be called.
func (i *Instance) usable() error {
	if i.broken {
		return &service.Error{Service: i.name, Kind: service.KindUnavailable, Message: "the sandbox is broken by an earlier failure and has not been reset"}
	}
	return nil
}

// failed notes what a call that failed has spent.
func (i *Instance) failed(err error) error {
	if e, ok := err.(*service.Error); ok {
		e.Fuel = uint64(i.meter.spent())
	}
	return err
}

// Hydrate makes an entity resident: from a snapshot (nil is none) at the given
// version, and the events after it, which the function events yields in order. They go to
// the guest in requests of bounded size, each with a call's time, a call's fuel, and the
// fuel of its events; an event has been copied when its yield returns. An error of yield
// ends the events and is returned by Hydrate. If events fails by itself its error is returned
// and the instance is fine, but the entity must be dropped or hydrated again.
//
// KindFault means that the guest could not take the snapshot or an event; the
// instance is fine, the entity is not resident.
func (i *Instance) Hydrate(ctx context.Context, slot uint32, key service.Key, version service.Version, snapshot []byte, events service.GuestEvents) error {
	b := abi.AppendOpen(i.request[:0], slot, uint64(version), string(key), snapshot)
	frames := uint32(1)
	var failed error                    // of the guest
	finding := startLap(clock(), false) // what the host does to find the events
	err := events(func(e service.GuestEvent) error {
		size := abi.RequestHeaderSize + 16 + len(e.Data) + len(e.Metadata)
		if frames == chunkFrames || frames > 0 && len(b)+size > chunkBytes {
			i.hostWork(finding)
			if failed = i.apply(ctx, b, slot, frames); failed != nil {
				return failed
			}
			b, frames, finding = b[:0], 0, startLap(clock(), false)
		}
		b = abi.AppendApply(b, slot, e.Type, uint64(e.Version), uint64(e.Time), e.Data, e.Metadata)
		frames++
		return nil
	})
	if failed != nil {
		return failed
	}
	i.hostWork(finding)
	if err != nil || frames == 0 {
		i.keep(b)
		return err
	}
	return i.apply(ctx, b, slot, frames)
}

// apply sends one request of Open and Apply frames.
func (i *Instance) apply(ctx context.Context, b []byte, slot, frames uint32) error {
	i.keep(b)
	q := i.question(abi.ReqApply, slot)
	q.frames = frames
	// The clock is the same whatever chunk an event is in: replay does not depend on it.
	var a answer
	if err := i.ask(ctx, b, &q, &scene{budget: i.framesBudget(frames)}, &a); err != nil {
		return err
	}
	if a.terminal == abi.RespFault {
		return i.fault(a.refusal)
	}
	return nil
}

// fault is the error of a Fault that the guest has reported.
func (i *Instance) fault(x abi.Refusal) error {
	return i.failed(refusal(service.KindFault, i.name, x))
}

// Handle runs a command. A rejection by the domain is an outcome, not an error.
// KindFault means that the handler failed: the entity is dirty and has to be
// hydrated again before it is used, the instance is fine. After any other error
// the instance is broken, unless the guest was not entered.
//
// The outcome's slices refer to copies that nobody else uses, of about their size.
func (i *Instance) Handle(ctx context.Context, c service.GuestCall) (service.Outcome, error) {
	if len(c.Data) > i.limits.CommandBytes {
		return service.Outcome{}, service.Errorf(service.KindTooLarge, "the command's data has %d bytes; the limit is %d", len(c.Data), i.limits.CommandBytes)
	}
	b := abi.AppendCommand(i.request[:0], c.Slot, c.Type, uint64(c.Version), uint64(c.Time), &c.Seed, string(c.ID), c.Metadata, c.Data)
	i.keep(b)
	q := i.question(abi.ReqCommand, c.Slot)
	on := scene{budget: i.callBudget(), now: c.Time, seed: c.Seed, gone: c.Gone, until: c.Deadline}
	return i.outcome(ctx, b, &q, &on)
}

// Query reads state. Its outcome has no events; errors are as for [Instance.Handle].
func (i *Instance) Query(ctx context.Context, c service.GuestQuery) (service.Outcome, error) {
	if len(c.Data) > i.limits.CommandBytes {
		return service.Outcome{}, service.Errorf(service.KindTooLarge, "the query's data has %d bytes; the limit is %d", len(c.Data), i.limits.CommandBytes)
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

// Snapshot encodes an entity's state. KindFault means that the guest cannot; the
// instance is fine.
func (i *Instance) Snapshot(ctx context.Context, slot uint32) ([]byte, error) {
	b := abi.AppendSnapshotRequest(i.request[:0], slot)
	i.keep(b)
	q := i.question(abi.ReqSnapshot, slot)
	var a answer
	if err := i.ask(ctx, b, &q, &scene{budget: i.callBudget()}, &a); err != nil {
		return nil, err
	}
	if a.terminal == abi.RespFault {
		return nil, i.fault(a.refusal)
	}
	return a.body, nil
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

// maxDescription bounds the answer to Describe: a manifest, its frame, and logs.
const maxDescription = abi.MaxManifestSize + 128<<10

// describe asks for the manifest.
func (i *Instance) describe(ctx context.Context) ([]byte, error) {
	b := abi.AppendDescribe(i.request[:0])
	i.keep(b)
	q := i.question(abi.ReqDescribe, 0)
	var a answer
	if err := i.ask(ctx, b, &q, &scene{budget: i.startBudget(), most: maxDescription}, &a); err != nil {
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

// ask sends a request, and checks the answer and makes it compact, which the service is
// charged for. a is empty, and stays so if there is an error. a and on are pointers: to copy them
// took as long as many a guest does.
func (i *Instance) ask(ctx context.Context, b []byte, q *question, on *scene, a *answer) error {
	if err := i.usable(); err != nil {
		return err
	}
	if err := i.begin(ctx, on); err != nil {
		return err
	}
	defer i.finish()
	response, err := i.exchange(b, max(on.most, i.limits.OutcomeBytes))
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

// checked checks an answer. Its Log frames are charged as calls of the host that log
// are, so the call can end here as it can within the guest.
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

// keep keeps a request's buffer for the next one, unless it has grown out of
// what calls usually need, or out of the budget.
func (i *Instance) keep(b []byte) {
	if cap(b) <= keepRequest && i.takeBuffer(cap(b)) {
		i.request = b[:0]
	}
}

package sandbox

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/admission"
	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// Instance is one sandbox: a module with a memory of its own. One goroutine at
// a time may use it, for all of its methods.
//
// A call that fails leaves the instance broken, unless the failure is a Fault
// that the guest reported itself: after a trap nobody knows what state the guest
// is in. A broken instance refuses every call until [Instance.Reset].
type Instance struct {
	program *Program
	name    service.Name
	limits  service.Limits
	account *account
	turn    *fair.Place
	pace    pace
	// unbilled is work in nanoseconds that the account has not been told of yet.
	unbilled int64
	yielded  int64 // of fair.Now: when it last let others run between two calls
	guest    guestContext
	working  working

	// Of the present incarnation.
	memory    *linearMemory
	module    api.Module
	mem       api.Memory
	globals   []api.MutableGlobal // the guest's own, by metering.Metered.Globals
	reserve   api.Function
	call      api.Function
	mailbox   uint32 // address
	capacity  uint32 // of the mailbox, in bytes; 0 before the first reserve
	watermark int64  // memory above which the instance is worn
	broken    bool

	// Of the present call.
	meter   meter
	ambient ambient
	log     guestLog
	words   []byte // message for a trap: the guest's last

	burnt   uint64    // fuel of all calls
	stack   [1]uint64 // parameter and result of a call
	request []byte    // reused from call to call
	closed  bool

	covered  uint64 // bytes of memory that were taken with the sandbox
	buffered int64  // bytes that were taken for the buffer of requests
	leave    func() // gives back what the sandbox has taken; nil before
}

// guestContext is the context that wazero and the host functions see. It never
// ends: what ends a guest is looked at between slices.
type guestContext struct {
	context.Context
	instance *Instance
}

// Value implements context.Context. It hands the instance to host functions.
func (c *guestContext) Value(key any) any {
	if _, ok := key.(instanceKey); ok {
		return c.instance
	}
	return nil
}

type instanceKey struct{}

// Instantiate starts a sandbox: from the program's image, or, if it has none, by
// setting its memory up and running _initialize. log takes what the guest logs; nil
// discards it.
func (p *Program) Instantiate(ctx context.Context, log Logger) (*Instance, error) {
	i := &Instance{program: p, name: service.Name(p.module.Manifest.Service), limits: p.limits, account: p.account,
		turn: fair.NewPlace(p.account.Account)}
	i.guest = guestContext{context.Background(), i}
	i.log = guestLog{to: log, name: i.name, limit: p.limits.LogBytes}
	if !p.adopt(i) {
		return nil, errProgramClosed
	}
	var err error
	i.covered = uint64(p.startBytes)
	if i.leave, err = p.admit(); err != nil {
		_ = i.Close(ctx)
		return nil, err
	}
	if err := i.start(ctx); err != nil {
		_ = i.Close(ctx)
		return nil, err
	}
	return i, nil
}

var errProgramClosed = &service.Error{Kind: service.KindUnavailable, Message: "the program is closed"}

// start begins an incarnation. A turn that the instance holds is given up while it waits
// for others, and taken again.
func (i *Instance) start(ctx context.Context) error {
	inTurn := i.turn.Held()
	image, made, err := i.program.base(ctx, func() {
		if inTurn {
			i.turn.Release()
		}
	})
	if err != nil {
		return err
	}
	var initialised *Instance
	defer func() { made(initialised) }()
	if inTurn && !i.turn.Held() {
		if err := i.takeTurnToReset(ctx); err != nil {
			return err
		}
	}
	if err := i.instantiate(image); err != nil {
		return err
	}
	if image != nil {
		image.restore(i.globals)
	} else if err := i.initialise(ctx); err != nil {
		return err
	}
	initialised = i
	i.ready()
	return nil
}

// instantiate makes wazero's instance. No code of the guest runs in it: the
// rewriting has put all that would into a function of its own. image may be nil.
func (i *Instance) instantiate(image *image) error {
	defer i.hostWork(fair.StartLap(fair.Now(), true))
	p := i.program
	memory, err := newMemory(p.runtime.backing, uint64(admission.MemoryLimit(i.limits)), uint64(p.minBytes), image,
		&p.hold, i.covered)
	if err != nil {
		return err
	}
	i.memory, i.broken = memory, true
	err = guarded(func() (err error) {
		inner := experimental.WithMemoryAllocator(context.Background(), memory)
		i.module, err = p.wazero.InstantiateModule(inner, p.compiled,
			wazero.NewModuleConfig().WithName("").WithStartFunctions())
		return err
	})
	if err != nil {
		return i.classify(err)
	}
	i.mem = i.module.Memory()
	i.meter.fuel = i.global(metering.ExportFuel)
	i.meter.stack = i.global(metering.ExportStack)
	i.globals = i.globals[:0]
	for _, g := range p.metered.Globals {
		i.globals = append(i.globals, i.global(g.Export))
	}
	return nil
}

// global is a global that the rewriting has exported.
func (i *Instance) global(name string) api.MutableGlobal {
	return i.module.ExportedGlobal(name).(api.MutableGlobal)
}

// initialise runs what a module has to run once.
func (i *Instance) initialise(ctx context.Context) error {
	if err := i.begin(ctx, &scene{budget: i.startBudget()}); err != nil {
		return err
	}
	var err error
	if i.program.metered.Setup {
		err = i.enter(i.module.ExportedFunction(metering.ExportSetup))
	}
	if f := i.module.ExportedFunction(abi.ExportInitialize); f != nil && err == nil {
		err = i.enter(f)
	}
	i.finish()
	return err
}

// ready has the instance take calls. Its call engines are fresh: a stack that has
// grown in an earlier incarnation is not kept.
func (i *Instance) ready() {
	i.reserve = i.module.ExportedFunction(abi.ExportReserve)
	i.call = i.module.ExportedFunction(abi.ExportCall)
	i.mailbox, i.capacity, i.memory.started = 0, 0, true
	start, limit := i.MemoryBytes(), admission.MemoryLimit(i.limits)
	i.watermark = max(limit*int64(i.limits.MemoryWatermark)/100, start+(limit-start)/2)
	i.broken = false
}

// scene is what a request comes with beside its frames.
type scene struct {
	budget budget
	most   int                // bytes of answer, if more than the service's outcomes may have
	fits   bool               // a larger answer is a Fault, and not a violation
	now    journal.UnixNano   // the guest's time
	seed   [abi.SeedSize]byte // of its randomness
	gone   <-chan struct{}    // see service.GuestCall
	until  time.Time          // the same; zero is never
}

// begin starts a request, which may enter the guest several times. It fails if the
// caller has gone already; then the guest must not be entered.
// A request that began ends with finish.
func (i *Instance) begin(ctx context.Context, on *scene) error {
	if err := ctx.Err(); err != nil {
		return &service.Error{Service: i.name, Kind: service.KindOf(err),
			Message: "the caller gave up before the guest ran", Err: err}
	}
	i.beginMeter(ctx, on)
	i.ambient.begin(on.now, on.seed)
	i.log.begin()
	i.words = i.words[:0]
	i.memory.begin()
	now := fair.Now()
	// A call that ends within its first slice does not wait for a turn: others have their
	// moment between two calls, if only the shard gives way now and then. A turn that is
	// there is used.
	if i.account.Heavy(now) && !i.turn.Resume() && now-i.yielded > yieldTime {
		i.yielded = now
		runtime.Gosched()
		now = fair.Now()
	}
	i.run(now)
	return nil
}

// finish ends a request.
func (i *Instance) finish() {
	now := fair.Now()
	i.endGrant(now)
	i.lap(now, false)
	i.turn.Pause(now)
	i.burnt += uint64(i.meter.spent())
	i.meter.forget()
}

// enter calls an export, with parameter and result in i.stack. Nothing that happens
// in the guest leaves it but as an error, which leaves the instance broken. It
// allocates nothing of its own.
func (i *Instance) enter(f api.Function) (err error) {
	i.meter.arm(i.limits.StackBytes)
	defer func() {
		if bug := recover(); bug != nil { // wazero's own
			err = fmt.Errorf("wazero: %v", bug)
		}
		i.meter.stop()
		i.log.end()
		if err != nil {
			i.broken = true
			err = i.classify(err)
		}
	}()
	if err := f.CallWithStack(&i.guest, i.stack[:]); err != nil {
		return err
	}
	return i.memory.short
}

// guarded keeps a panic of wazero's own from ending the host.
func guarded(f func() error) (err error) {
	defer func() {
		if bug := recover(); bug != nil {
			err = fmt.Errorf("wazero: %v", bug)
		}
	}()
	return f()
}

// Reset makes the instance as it was after [Program.Instantiate]: in place, by
// giving back what was written since, if there is an image and memory has not grown;
// otherwise by starting a fresh incarnation. It works on broken instances; if it
// fails the instance stays broken and Reset may be tried again.
func (i *Instance) Reset(ctx context.Context) error {
	if i.closed {
		return service.Errorf(service.KindUnavailable, "the sandbox is closed")
	}
	if err := ctx.Err(); err != nil {
		return &service.Error{Service: i.name, Kind: service.KindOf(err),
			Message: "the caller gave up before the sandbox was reset", Err: err}
	}
	i.log.about = service.About{}
	// Making sandboxes is work that the guest made necessary: a service that has to take
	// turns takes one for it, or guests that trap again and again would have their pages
	// given back on all processors at once.
	if err := i.takeTurnToReset(ctx); err != nil {
		return err
	}
	defer func() { i.turn.Pause(fair.Now()) }()
	if m := i.memory.image; m != nil && i.module != nil && !i.module.IsClosed() && uint64(len(i.memory.b)) == m.size {
		i.broken = true
		defer i.hostWork(fair.StartLap(fair.Now(), true))
		if err := i.memory.reset(); err != nil {
			return err
		}
		m.restore(i.globals)
		i.ready()
		return nil
	}
	work := fair.StartLap(fair.Now(), true)
	i.end(ctx)
	i.hostWork(work)
	if err := i.start(ctx); err != nil {
		i.end(ctx)
		return err
	}
	return nil
}

// takeTurnToReset waits for a turn if the service has to have one.
func (i *Instance) takeTurnToReset(ctx context.Context) error {
	now := fair.Now()
	if !i.account.Heavy(now) {
		return nil
	}
	i.beginMeter(ctx, &scene{budget: i.startBudget()})
	defer i.meter.forget()
	if _, trap := i.takeTurn(now); trap != nil {
		return &service.Error{Service: i.name, Kind: trap.kind, Message: trap.text, RetryAfter: retryTurn}
	}
	return nil
}

// end closes the incarnation.
func (i *Instance) end(ctx context.Context) {
	if i.module != nil {
		_ = i.module.Close(ctx) // there is nothing in a guest that could fail to close
	}
	// Whoever keeps a closed instance does not keep its memory.
	i.module, i.mem, i.reserve, i.call, i.globals = nil, nil, nil, nil, nil
	i.meter = meter{}
	i.broken = true
	if i.memory != nil {
		i.memory.release()
	}
}

// Close ends the sandbox. It is idempotent.
func (i *Instance) Close(ctx context.Context) error {
	if i.closed {
		return nil
	}
	i.closed = true
	i.turn.Release()
	i.end(ctx)
	i.giveAll()
	i.program.disown(i)
	return nil
}

// Broken reports whether the instance has to be reset before its next call.
func (i *Instance) Broken() bool { return i.broken }

// About says what the guest works on in the calls that follow, until it is reset, for those
// who read what it logs.
func (i *Instance) About(a service.About) { i.log.about = a }

// Worn reports whether the guest's memory has grown past the service's watermark,
// so that the instance should be reset between two calls. A guest whose memory is
// large from its start on is worn when half of what is left above that is used.
func (i *Instance) Worn() bool { return i.MemoryBytes() > i.watermark }

// Fuel is what all calls of this instance have spent, in all of its incarnations.
func (i *Instance) Fuel() uint64 { return i.burnt }

// MemoryBytes is the present size of the guest's linear memory.
func (i *Instance) MemoryBytes() int64 {
	if i.memory == nil {
		return 0
	}
	return int64(len(i.memory.b))
}

// exchange sends a request and returns where the guest says its answer is, as a
// copy. most bounds the answer's size; fits says that a larger one is a Fault, and the
// instance fine. It is called between begin and finish.
func (i *Instance) exchange(request []byte, most int, fits bool) ([]byte, error) {
	if len(request) > abi.MaxFrameSize {
		return nil, service.Errorf(service.KindTooLarge, "the request has %d bytes; a mailbox holds %d", len(request),
			abi.MaxFrameSize)
	}
	if uint32(len(request)) > i.capacity {
		if err := i.grow(uint32(len(request))); err != nil {
			return nil, err
		}
	}
	// The address is good until the next reserve, but memory may have been
	// moved by a growth since: it is looked up again at each access.
	if !i.mem.Write(i.mailbox, request) {
		return nil, i.violation("reserve", service.KindProtocol, "the mailbox is outside of memory")
	}
	i.stack[0] = uint64(len(request))
	if err := i.enter(i.call); err != nil {
		return nil, err
	}
	_, length := abi.UnpackRange(i.stack[0])
	i.meter.owed += byteTime * int64(len(request))
	if length > largeAnswer {
		i.hostLap()
	}
	if fits && int64(length) > int64(most) {
		return nil, tooLarge(i.name, int(length))
	}
	answer, err := i.copyAnswer(i.stack[0], most)
	i.meter.owed += byteTime * int64(len(answer))
	return answer, err
}

// reserveStep is what mailboxes are rounded up to, so that requests of about the
// same size do not each reserve anew.
const reserveStep = 16 << 10

// grow asks the guest for a mailbox of at least n bytes.
func (i *Instance) grow(n uint32) error {
	rounded := (n + reserveStep - 1) / reserveStep * reserveStep
	for _, size := range [...]uint32{rounded, n} {
		i.stack[0] = uint64(size)
		if err := i.enter(i.reserve); err != nil {
			return err
		}
		addr := uint32(i.stack[0])
		switch {
		case addr == 0 && size > n:
			continue // a guest with a fixed mailbox may still have the exact size
		case addr == 0:
			return i.violation("reserve", service.KindProtocol, "the guest refused a mailbox of %d bytes", size)
		case addr%abi.FrameAlign != 0:
			return i.violation("reserve", service.KindProtocol, "the mailbox at address %d is not a multiple of %d",
				addr, abi.FrameAlign)
		case uint64(addr)+uint64(size) > uint64(len(i.memory.b)):
			return i.violation("reserve", service.KindProtocol, "the mailbox at [%d:+%d] is outside of memory, which "+
				"has %d bytes", addr, size, len(i.memory.b))
		}
		i.mailbox, i.capacity = addr, size
		return nil
	}
	return nil // not reached: the last size returns
}

// copyAnswer copies the answer out of the guest. It is the only place where
// bytes of the guest's memory become bytes of the host's, but for log lines and
// trap messages: a view of guest memory never leaves this file's functions.
func (i *Instance) copyAnswer(packed uint64, most int) ([]byte, error) {
	addr, length := abi.UnpackRange(packed)
	if length == 0 {
		return nil, nil
	}
	end := uint64(addr) + uint64(length)
	switch size := uint64(len(i.memory.b)); {
	case end > size:
		return nil, i.violation("answer", service.KindProtocol, "the answer at [%d:+%d] is outside of memory, which "+
			"has %d bytes", addr, length, size)
	case uint64(addr) < uint64(i.mailbox)+uint64(i.capacity) && end > uint64(i.mailbox):
		return nil, i.violation("answer", service.KindProtocol, "the answer at [%d:+%d] overlaps the mailbox at "+
			"[%d:+%d]", addr, length, i.mailbox, i.capacity)
	case uint64(length) > uint64(most):
		return nil, i.violation("answer", service.KindOutcomeTooLarge, "the answer has %d bytes; the limit is %d",
			length, most)
	}
	view, ok := i.mem.Read(addr, length)
	if !ok {
		return nil, i.violation("answer", service.KindProtocol, "the answer at [%d:+%d] is outside of memory", addr,
			length)
	}
	return yield.Append(yield.Uncleared(len(view)), view), nil
}

// violation marks the instance broken and says what the guest did.
func (i *Instance) violation(where string, kind service.Kind, format string, args ...any) *service.Error {
	i.broken = true
	e := service.Errorf(kind, format, args...)
	e.Service = i.name
	if where != "" {
		e.Message = where + ": " + e.Message
	}
	return e
}

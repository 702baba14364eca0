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

// Instance is one sandbox: a module with its own memory. Only one goroutine at a time may use it, whatever
// the method.
//
// A call that fails leaves the instance broken, unless the guest itself reported a Fault: after a trap the
// guest's state is unknown. A broken instance refuses every call until [Instance.Reset].
type Instance struct {
	program *Program
	name    service.Name
	limits  service.Limits
	account *account
	turn    *fair.Place
	pace    pace
	// unbilled is work that the account has not been charged for yet, in nanoseconds.
	unbilled int64
	yielded  int64 // fair.Now when it last yielded between two calls
	guest    guestContext
	working  working

	// Of the present incarnation.
	memory    *linearMemory
	module    api.Module
	mem       api.Memory
	globals   []api.MutableGlobal // the guest's own; see metering.Metered.Globals
	reserve   api.Function
	call      api.Function
	mailbox   uint32 // address
	capacity  uint32 // of the mailbox, in bytes; 0 before the first call of reserve
	watermark int64  // bytes of memory above which the instance is worn
	broken    bool

	// Of the present call.
	meter   meter
	ambient ambient
	log     guestLog
	words   []byte // the guest's last message, which explains a trap

	burnt   uint64    // fuel of all calls
	stack   [1]uint64 // parameter and result of a call
	request []byte    // buffer that calls reuse
	closed  bool

	covered  uint64 // bytes of memory taken with the sandbox
	buffered int64  // bytes taken for the request buffer
	leave    func() // gives back what the sandbox has taken; nil before
}

// guestContext is the context that wazero and the host functions see. It never ends: whatever ends a guest is
// checked between slices.
type guestContext struct {
	context.Context
	instance *Instance
}

// Value implements context.Context. It gives host functions access to the instance.
func (c *guestContext) Value(key any) any {
	if _, ok := key.(instanceKey); ok {
		return c.instance
	}
	return nil
}

type instanceKey struct{}

// Instantiate starts a sandbox from the program's image. Without an image it sets up memory and runs
// _initialize. log gets the guest's log lines; nil discards them.
func (p *Program) Instantiate(ctx context.Context, log Logger) (*Instance, error) {
	return p.newInstance(ctx, log, p.account)
}

// InstantiateBackground is Instantiate for work that nobody waits for. The sandbox takes turns of its own, in
// the background class: see [fair.NewBackground]. Its calls wait for a turn as long as their context allows.
func (p *Program) InstantiateBackground(ctx context.Context, log Logger) (*Instance, error) {
	a := &account{Account: fair.NewBackground(p.runtime.processors), name: p.account.name}
	a.slow.account = a.Account
	return p.newInstance(ctx, log, a)
}

func (p *Program) newInstance(ctx context.Context, log Logger, a *account) (*Instance, error) {
	i := &Instance{program: p, name: service.Name(p.module.Manifest.Service), limits: p.limits, account: a,
		turn: fair.NewPlace(a.Account)}
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

// start begins an incarnation. If the instance holds a turn, it gives the turn up while it waits for others.
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

// instantiate creates wazero's instance. It runs no code of the guest: the rewriting has moved any such code
// into a function. image may be nil.
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

// global returns a global that the rewriting has exported.
func (i *Instance) global(name string) api.MutableGlobal {
	return i.module.ExportedGlobal(name).(api.MutableGlobal)
}

// initialise runs what a module must run once.
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

// ready prepares the instance for calls. It creates new call engines, so that a stack that grew in an earlier
// incarnation is not kept.
func (i *Instance) ready() {
	i.reserve = i.module.ExportedFunction(abi.ExportReserve)
	i.call = i.module.ExportedFunction(abi.ExportCall)
	i.mailbox, i.capacity, i.memory.started = 0, 0, true
	start, limit := i.MemoryBytes(), admission.MemoryLimit(i.limits)
	i.watermark = max(limit*int64(i.limits.MemoryWatermark)/100, start+(limit-start)/2)
	i.broken = false
}

// scene is what comes with a request beside its frames.
type scene struct {
	budget   budget
	maxBytes int                // maximum size of the answer in bytes; 0: the limit for outcomes
	fits     bool               // an answer that is too large is a Fault, not a violation
	now      journal.UnixNano   // the guest's time
	seed     [abi.SeedSize]byte // of the guest's randomness
	gone     <-chan struct{}    // see service.GuestCall
	until    time.Time          // see service.GuestCall; zero: no limit
}

// begin starts a request, which may enter the guest several times. It fails if the caller has already gone;
// then the guest must not be entered. A request that began must be ended by finish.
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
	if i.account.Background() {
		if _, trap := i.takeTurn(now); trap != nil {
			i.meter.forget()
			return &service.Error{Service: i.name, Kind: trap.kind, Message: trap.text}
		}
		i.run(fair.Now())
		return nil
	}
	// A call that ends within its first slice does not wait for a turn. It is enough for others that the
	// shard yields from time to time between two calls. A turn that is available is used.
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

// enter calls an export, with parameter and result in i.stack. Whatever happens in the guest becomes an
// error, which leaves the instance broken. It allocates nothing itself.
func (i *Instance) enter(f api.Function) (err error) {
	i.meter.arm(i.limits.StackBytes)
	defer func() {
		if bug := recover(); bug != nil { // in wazero
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

// guarded turns a panic inside wazero into an error.
func guarded(f func() error) (err error) {
	defer func() {
		if bug := recover(); bug != nil {
			err = fmt.Errorf("wazero: %v", bug)
		}
	}()
	return f()
}

// Reset returns the instance to its state after [Program.Instantiate]. If there is an image and memory has
// not grown, this happens in place: the pages written since are discarded. Otherwise a new incarnation
// starts. Reset works on broken instances. If it fails, the instance stays broken, and Reset may be tried
// again.
func (i *Instance) Reset(ctx context.Context) error {
	if i.closed {
		return service.Errorf(service.KindUnavailable, "the sandbox is closed")
	}
	if err := ctx.Err(); err != nil {
		return &service.Error{Service: i.name, Kind: service.KindOf(err),
			Message: "the caller gave up before the sandbox was reset", Err: err}
	}
	i.log.about = service.About{}
	// The guest caused this work. So a service that must take turns takes one for it; otherwise guests that
	// trap again and again would have their pages discarded on all processors at once.
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

// takeTurnToReset waits for a turn if the service must have one.
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
		_ = i.module.Close(ctx) // closing a guest cannot fail
	}
	// A closed instance that is still referenced must not keep its memory.
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

// Broken reports whether the instance must be reset before its next call.
func (i *Instance) Broken() bool { return i.broken }

// About says, for the readers of the guest's log, what the guest works on in the calls that follow. It holds
// until the next reset.
func (i *Instance) About(a service.About) { i.log.about = a }

// Worn reports whether the guest's memory has grown past the service's watermark, so that the instance should
// be reset between two calls. If a guest's memory is already large at its start, the watermark lies halfway
// between that size and the limit.
func (i *Instance) Worn() bool { return i.MemoryBytes() > i.watermark }

// Fuel is what all calls of this instance have spent, in all its incarnations.
func (i *Instance) Fuel() uint64 { return i.burnt }

// MemoryBytes is the present size of the guest's linear memory.
func (i *Instance) MemoryBytes() int64 {
	if i.memory == nil {
		return 0
	}
	return int64(len(i.memory.b))
}

// exchange sends a request and returns a copy of the answer. maxBytes is the maximum size of the answer. If
// fits is true, a larger answer is a Fault and the instance stays usable. It is called between begin and
// finish.
func (i *Instance) exchange(request []byte, maxBytes int, fits bool) ([]byte, error) {
	if len(request) > abi.MaxFrameSize {
		return nil, service.Errorf(service.KindTooLarge, "the request has %d bytes; a mailbox holds %d", len(request),
			abi.MaxFrameSize)
	}
	if uint32(len(request)) > i.capacity {
		if err := i.grow(uint32(len(request))); err != nil {
			return nil, err
		}
	}
	// The address stays valid until the next reserve. But the memory may have moved while it grew, so it is
	// looked up for each access.
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
	if fits && int64(length) > int64(maxBytes) {
		return nil, tooLarge(i.name, int(length))
	}
	answer, err := i.copyAnswer(i.stack[0], maxBytes)
	i.meter.owed += byteTime * int64(len(answer))
	return answer, err
}

// reserveStep rounds up the size of mailboxes, so that requests of about the same size do not each call
// reserve.
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
			continue // a guest with a fixed mailbox may still offer the exact size
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

// copyAnswer copies the answer out of the guest. Apart from log lines and trap messages, this is the only
// place where bytes of the guest's memory become bytes of the host's. A view of guest memory never leaves the
// functions of this file.
func (i *Instance) copyAnswer(packed uint64, maxBytes int) ([]byte, error) {
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
	case uint64(length) > uint64(maxBytes):
		return nil, i.violation("answer", service.KindOutcomeTooLarge, "the answer has %d bytes; the limit is %d",
			length, maxBytes)
	}
	view, ok := i.mem.Read(addr, length)
	if !ok {
		return nil, i.violation("answer", service.KindProtocol, "the answer at [%d:+%d] is outside of memory", addr,
			length)
	}
	return yield.Append(yield.Uncleared(len(view)), view), nil
}

// violation marks the instance broken and returns an error that says what the guest did.
func (i *Instance) violation(where string, kind service.Kind, format string, args ...any) *service.Error {
	i.broken = true
	e := service.Errorf(kind, format, args...)
	e.Service = i.name
	if where != "" {
		e.Message = where + ": " + e.Message
	}
	return e
}

package sandbox

import (
	"context"
	"fmt"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
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

	// Of the present incarnation.
	guest    *guestContext
	memory   *linearMemory
	module   api.Module
	mem      api.Memory
	reserve  api.Function
	call     api.Function
	mailbox  uint32 // address
	capacity uint32 // of the mailbox, in bytes; 0 before the first reserve
	broken   bool

	watermark int64  // memory above which the instance is worn
	burnt     uint64 // fuel of all calls

	// Of the present call.
	ambient ambient
	log     guestLog
	fault   []byte // message for a trap

	watchdog watchdog
	stack    [1]uint64 // parameter and result of a call
	request  []byte    // reused from call to call
	closed   bool
}

// Instantiate starts a sandbox: its memory is set up and _initialize has run.
// log takes what the guest logs; nil discards it.
func (p *Program) Instantiate(ctx context.Context, log Logger) (*Instance, error) {
	i := &Instance{program: p, name: service.Name(p.module.Manifest.Service), limits: p.limits}
	i.log = guestLog{to: log, name: i.name, limit: p.limits.LogBytes}
	if err := i.start(ctx); err != nil {
		_ = i.Close(ctx)
		return nil, err
	}
	return i, nil
}

// start begins an incarnation.
func (i *Instance) start(ctx context.Context) error {
	i.guest = newGuestContext(i)
	i.memory = &linearMemory{limit: uint64(memoryLimit(i.limits))}
	i.watchdog.renew(i.guest)
	i.mailbox, i.capacity, i.broken = 0, 0, true
	limit := startCalls * i.limits.CallTime
	err := i.run(ctx, limit, 0, nil, func() (err error) {
		inner := experimental.WithMemoryAllocator(i.guest, i.memory)
		i.module, err = i.program.wazero.InstantiateModule(inner, i.program.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
		return err
	})
	if err != nil {
		return err
	}
	i.mem = i.module.Memory()
	i.reserve = i.module.ExportedFunction(abi.ExportReserve)
	i.call = i.module.ExportedFunction(abi.ExportCall)
	if initialize := i.module.ExportedFunction(abi.ExportInitialize); initialize != nil {
		if err := i.run(ctx, limit, 0, nil, func() error { return initialize.CallWithStack(i.guest, i.stack[:]) }); err != nil {
			return err
		}
	}
	start, limit64 := i.MemoryBytes(), memoryLimit(i.limits)
	i.watermark = max(limit64*int64(i.limits.MemoryWatermark)/100, start+(limit64-start)/2)
	i.broken = false
	return nil
}

// startCalls is how many calls' time a start may take: a guest that is quick to
// answer may have much to set up first, and it does so once.
const startCalls = 10

// run runs f, which enters the guest, for no longer than limit, at the given time
// and with the given seed. Nothing that happens in the guest leaves it but as an
// error.
func (i *Instance) run(ctx context.Context, limit time.Duration, now journal.UnixNano, seed *[abi.SeedSize]byte, f func() error) error {
	i.ambient.begin(now, seed)
	i.log.begin()
	i.fault = i.fault[:0]
	i.memory.refused = false
	if err := i.watchdog.begin(ctx, limit); err != nil {
		return &service.Error{Service: i.name, Kind: service.KindOf(err), Message: "the caller gave up before the guest ran", Err: err}
	}
	err := guarded(f)
	stop := i.watchdog.end()
	i.log.end()
	if err == nil && stop == stopNone {
		return nil
	}
	i.broken = true
	return i.classify(err, stop, limit)
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

// Reset throws the present incarnation away and starts a fresh one in place, as
// after [Program.Instantiate]. It works on broken instances; if it fails the
// instance stays broken and Reset may be tried again.
func (i *Instance) Reset(ctx context.Context) error {
	if i.closed {
		return service.Errorf(service.KindUnavailable, "the sandbox is closed")
	}
	i.end(ctx)
	return i.start(ctx)
}

// end closes the incarnation.
func (i *Instance) end(ctx context.Context) {
	if i.module != nil {
		_ = i.module.Close(ctx) // frees memory; there is nothing in a guest that could fail to close
	}
	// Whoever keeps a closed instance does not keep its memory.
	i.module, i.mem, i.reserve, i.call = nil, nil, nil, nil
	i.broken = true
}

// Close ends the sandbox. It is idempotent.
func (i *Instance) Close(ctx context.Context) error {
	if i.closed {
		return nil
	}
	i.closed = true
	i.watchdog.close()
	i.end(ctx)
	return nil
}

// Broken reports whether the instance has to be reset before its next call.
func (i *Instance) Broken() bool { return i.broken }

// Worn reports whether the guest's memory has grown past the service's watermark,
// so that the instance should be reset between two calls. A guest whose memory is
// large from its start on is worn when half of what is left above that is used.
func (i *Instance) Worn() bool { return int64(len(i.memory.b)) > i.watermark }

// Fuel is what all calls of this instance have spent, in all of its incarnations.
func (i *Instance) Fuel() uint64 { return i.burnt }

// MemoryBytes is the present size of the guest's linear memory.
func (i *Instance) MemoryBytes() int64 { return int64(len(i.memory.b)) }

// enter calls an export that takes and returns one number. It allocates nothing
// of its own.
func (i *Instance) enter(ctx context.Context, f api.Function, arg uint32, now journal.UnixNano, seed *[abi.SeedSize]byte) (uint64, error) {
	i.stack[0] = uint64(arg)
	err := i.run(ctx, i.limits.CallTime, now, seed, func() error { return f.CallWithStack(i.guest, i.stack[:]) })
	return i.stack[0], err
}

// exchange sends a request and returns where the guest says its answer is, as a
// copy. most bounds the answer's size.
func (i *Instance) exchange(ctx context.Context, request []byte, most int, now journal.UnixNano, seed *[abi.SeedSize]byte) ([]byte, error) {
	if i.broken {
		return nil, &service.Error{Service: i.name, Kind: service.KindUnavailable, Message: "the sandbox is broken by an earlier failure and has not been reset"}
	}
	if len(request) > abi.MaxFrameSize {
		return nil, service.Errorf(service.KindTooLarge, "the request has %d bytes; a mailbox holds %d", len(request), abi.MaxFrameSize)
	}
	if uint32(len(request)) > i.capacity {
		if err := i.grow(ctx, uint32(len(request))); err != nil {
			return nil, err
		}
	}
	// The address is good until the next reserve, but memory may have been
	// moved by a growth since: it is looked up again at each access.
	if !i.mem.Write(i.mailbox, request) {
		return nil, i.violation("reserve", service.KindProtocol, "the mailbox is outside of memory")
	}
	answer, err := i.enter(ctx, i.call, uint32(len(request)), now, seed)
	if err != nil {
		return nil, err
	}
	return i.copyAnswer(answer, most)
}

// reserveStep is what mailboxes are rounded up to, so that requests of about the
// same size do not each reserve anew.
const reserveStep = 16 << 10

// grow asks the guest for a mailbox of at least n bytes.
func (i *Instance) grow(ctx context.Context, n uint32) error {
	rounded := (n + reserveStep - 1) / reserveStep * reserveStep
	for _, size := range [...]uint32{rounded, n} {
		result, err := i.enter(ctx, i.reserve, size, 0, nil)
		if err != nil {
			return err
		}
		addr := uint32(result)
		switch {
		case addr == 0 && size > n:
			continue // a guest with a fixed mailbox may still have the exact size
		case addr == 0:
			return i.violation("reserve", service.KindProtocol, "the guest refused a mailbox of %d bytes", size)
		case addr%abi.FrameAlign != 0:
			return i.violation("reserve", service.KindProtocol, "the mailbox at address %d is not a multiple of %d", addr, abi.FrameAlign)
		case uint64(addr)+uint64(size) > uint64(len(i.memory.b)):
			return i.violation("reserve", service.KindProtocol, "the mailbox at [%d:+%d] is outside of memory, which has %d bytes", addr, size, len(i.memory.b))
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
		return nil, i.violation("answer", service.KindProtocol, "the answer at [%d:+%d] is outside of memory, which has %d bytes", addr, length, size)
	case uint64(addr) < uint64(i.mailbox)+uint64(i.capacity) && end > uint64(i.mailbox):
		return nil, i.violation("answer", service.KindProtocol, "the answer at [%d:+%d] overlaps the mailbox at [%d:+%d]", addr, length, i.mailbox, i.capacity)
	case uint64(length) > uint64(most):
		return nil, i.violation("answer", service.KindOutcomeTooLarge, "the answer has %d bytes; the limit is %d", length, most)
	}
	view, ok := i.mem.Read(addr, length)
	if !ok {
		return nil, i.violation("answer", service.KindProtocol, "the answer at [%d:+%d] is outside of memory", addr, length)
	}
	out := make([]byte, length)
	copy(out, view)
	return out, nil
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

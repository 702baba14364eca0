package sandbox

import (
	"fmt"
	"time"

	quota "github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// retryMemory is the RetryAfter of a call for which the system had no memory.
const retryMemory = time.Second

// What an instance takes on the Go heap beside its stack and its tables, in bytes: wazero's objects, buffers
// for requests and logs, and a fixed amount for each global.
const (
	instanceBytes = 64 << 10
	bufferBytes   = 32 << 10 // the part for the request buffer; see [Instance.takeBuffer]
	globalBytes   = 80
)

// heapBytes is the maximum that an instance takes on the Go heap. It includes the call stack at its limit and
// the tables at their maximum.
func heapBytes(f *compile.Facts, l service.Limits) int64 {
	return int64(f.TableBytes) + instanceBytes + int64(l.StackBytes) + int64(f.AllGlobals)*globalBytes
}

// Tenant is the service that a program belongs to. What the program, its image and its instances hold is
// taken from the service's account.
type Tenant struct {
	Account *quota.Account
	Name    service.Name // may be empty: it belongs to no service
	// Recorded says that the service was deployed with this module before and only starts again. Then it may
	// take whatever is left, as it had it before. A new deployment may take only its share beside other
	// services; what it replaces counts as free.
	Recorded bool
}

// holding takes from the account of a service, in the service's name.
type holding struct {
	account  *quota.Account
	name     service.Name
	recorded bool     // see Tenant
	replaces [2]int64 // what the account held when the program began: sandboxes, bytes
}

func (t Tenant) holding() holding {
	return holding{t.Account, t.Name, t.Recorded,
		[2]int64{t.Account.Used(quota.Sandboxes), t.Account.Used(quota.SandboxBytes)}}
}

// take takes bytes of sandbox memory for a program that has started. A refusal is a *service.Error of
// KindQuota.
func (h *holding) take(bytes int64) error {
	return h.named(h.account.TakeShare(quota.SandboxBytes, bytes))
}

// takeStart takes bytes of sandbox memory that the program needs to start.
func (h *holding) takeStart(bytes int64) error {
	return h.starting(quota.SandboxBytes, bytes, h.replaces[1])
}

// takeReserved takes the memory that a reserved sandbox needs to start. There was room for it when the
// sandbox was reserved.
func (h *holding) takeReserved(bytes int64) error {
	return h.named(h.account.Take(quota.SandboxBytes, bytes))
}

func (h *holding) starting(r quota.Resource, n, replaces int64) error {
	if h.recorded {
		return h.named(h.account.Take(r, n))
	}
	return h.named(h.account.TakeShareBeside(r, n, replaces))
}

func (h *holding) give(bytes int64) { h.account.Give(quota.SandboxBytes, bytes) }

func (h *holding) takeSandboxes(n int) error {
	return h.starting(quota.Sandboxes, int64(n), h.replaces[0])
}

func (h *holding) giveSandboxes(n int) { h.account.Give(quota.Sandboxes, int64(n)) }

// named adds the service to a refusal.
func (h *holding) named(err error) error {
	if e, ok := err.(*service.Error); ok {
		e.Service = h.name
	}
	return err
}

// Reserve takes n sandboxes from the budget for later instances of the program; Close gives them back. It
// fails with KindQuota if the budget does not have n sandboxes, or not the memory with which n would start
// now. It does not reserve that memory: each instance takes it when it starts.
func (p *Program) Reserve(n int) error {
	if err := p.hold.takeSandboxes(n); err != nil {
		return err
	}
	bytes := int64(n) * p.startingBytes()
	if err := p.hold.takeStart(bytes); err != nil {
		p.hold.giveSandboxes(n)
		return err
	}
	p.hold.give(bytes)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reserved += n
	p.free += n
	return nil
}

// startingBytes is what an instance holds when it has just started.
func (p *Program) startingBytes() int64 { return p.heapBytes + p.startBytes }

// admit takes what an instance needs to start: memory, and a sandbox, which is a reserved one if any is free.
// leave gives both back.
func (p *Program) admit() (leave func(), err error) {
	reserved := p.useReserved()
	if !reserved {
		if err := p.hold.takeSandboxes(1); err != nil {
			return nil, err
		}
	}
	bytes := p.startingBytes()
	if reserved {
		err = p.hold.takeReserved(bytes)
	} else {
		err = p.hold.takeStart(bytes)
	}
	if err != nil {
		bytes = 0
	}
	leave = func() {
		p.hold.give(bytes)
		if !reserved {
			p.hold.giveSandboxes(1)
			return
		}
		p.mu.Lock()
		p.free++
		p.mu.Unlock()
	}
	if err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// useReserved takes a reserved sandbox; false if none is free.
func (p *Program) useReserved() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == 0 {
		return false
	}
	p.free--
	return true
}

// takeCode takes memory for machine code that is about to be loaded.
func (p *Program) takeCode(bytes int64) error {
	if err := p.hold.takeStart(bytes); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codeBytes = bytes
	return nil
}

func (p *Program) giveCode() {
	p.mu.Lock()
	bytes := p.codeBytes
	p.codeBytes = 0
	p.mu.Unlock()
	if bytes > 0 {
		p.hold.give(bytes)
	}
}

// unreserve gives back what Reserve took.
func (p *Program) unreserve() {
	p.mu.Lock()
	n := p.reserved
	p.reserved, p.free = 0, 0
	p.mu.Unlock()
	p.hold.giveSandboxes(n)
}

// Memory is what a program and its instances hold beside their linear memories, in bytes.
type Memory struct {
	Code   int64
	Image  int64 // the image that instances begin as
	Tables int64 // the tables of all instances
}

// Memory is what the program holds now.
func (p *Program) Memory() Memory {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := Memory{Code: p.codeBytes, Tables: int64(len(p.instances)) * p.tableBytes}
	if p.image != nil {
		m.Image = p.image.bytes
	}
	return m
}

// takeBuffer takes from the budget what a buffer of n bytes needs beyond what every instance takes. It
// reports whether the buffer may be kept. A buffer is optional, so it leaves most of the budget's free bytes
// to others.
func (i *Instance) takeBuffer(n int) bool {
	more := int64(n) - bufferBytes - i.buffered
	if more <= 0 {
		return true
	}
	account := i.program.hold.account
	if account.Room(quota.SandboxBytes)/8 < more || !account.TryTake(quota.SandboxBytes, more) {
		return false
	}
	i.buffered += more
	return true
}

// giveAll gives back what the instance holds beside its memory.
func (i *Instance) giveAll() {
	i.request = nil
	i.program.hold.give(i.buffered)
	i.buffered = 0
	if i.leave != nil {
		i.leave()
	}
}

// shortage is the error of a call during which the host had no memory for the guest. The guest has seen that
// its memory did not grow, so its answer is void.
func (i *Instance) shortage(short error) *service.Error {
	out := &service.Error{Kind: service.KindUnavailable, Err: short}
	if e, ok := short.(*service.Error); ok {
		out = new(*e)
	}
	out.Service = i.name
	out.Message = fmt.Sprintf("the guest's memory of %d bytes could not grow, and nothing was written: %s",
		i.MemoryBytes(), out.Message)
	return out
}

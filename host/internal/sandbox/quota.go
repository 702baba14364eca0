package sandbox

import (
	"fmt"
	"time"

	quota "github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// retryMemory is when to try again after the system had no memory.
const retryMemory = time.Second

// What an instance takes on the Go heap beside its stack and its tables: wazero's
// objects, buffers of requests and logs; and for each of its globals.
const (
	instanceBytes = 64 << 10
	bufferBytes   = 32 << 10 // of that, the buffer of requests; see [Instance.takeBuffer]
	globalBytes   = 80
)

// heapBytes is what an instance takes on the Go heap, at most: its call stack as large as
// its limit lets it become, and its tables as large as they become.
func heapBytes(f *compile.Facts, l service.Limits) int64 {
	return int64(f.TableBytes) + instanceBytes + int64(l.StackBytes) + int64(f.AllGlobals)*globalBytes
}

// Tenant is the service that a program is for: what the program, its image and its
// instances hold is taken from its account.
type Tenant struct {
	Account *quota.Account
	Name    service.Name // may be empty: nobody's in particular
	// Recorded says that the service has been deployed with this module, and only starts
	// again: it may have whatever there is, as it had before. What is new may have what
	// is left to it beside others; what it replaces counts as free.
	Recorded bool
}

// holding is what is taken from the account of a service, in its name.
type holding struct {
	account  *quota.Account
	name     service.Name
	recorded bool     // see Tenant
	replaces [2]int64 // what the account held when the program began: sandboxes, and bytes
}

func (t Tenant) holding() holding {
	return holding{t.Account, t.Name, t.Recorded,
		[2]int64{t.Account.Used(quota.Sandboxes), t.Account.Used(quota.SandboxBytes)}}
}

// take takes bytes of sandbox memory for what has started. A refusal is a *service.Error
// of kind quota.
func (h *holding) take(bytes int64) error {
	return h.named(h.account.TakeShare(quota.SandboxBytes, bytes))
}

// takeStart takes bytes of sandbox memory without which the program does not start.
func (h *holding) takeStart(bytes int64) error {
	return h.starting(quota.SandboxBytes, bytes, h.replaces[1])
}

// takeReserved takes the memory with which a sandbox starts for which there was room when
// it was reserved.
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

// named says whose refusal it is.
func (h *holding) named(err error) error {
	if e, ok := err.(*service.Error); ok {
		e.Service = h.name
	}
	return err
}

// Reserve takes n sandboxes from the budget, for instances that the program will
// have later; it gives them back when it is closed. It fails, with an error of kind
// quota, if the budget does not have so many, or not the memory with which so many
// start now. Memory is not reserved: it is taken by each instance when it starts.
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

// startingBytes is what an instance takes when it starts: all that it has then.
func (p *Program) startingBytes() int64 { return p.heapBytes + p.startBytes }

// admit takes what an instance needs to start: a sandbox, of those that are reserved if
// there is one, and memory. leave gives both back.
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

// useReserved takes a sandbox that is reserved; false if there is none left.
func (p *Program) useReserved() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == 0 {
		return false
	}
	p.free--
	return true
}

// takeCode takes the memory for machine code that is about to be in it.
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

// Memory is what a program and its instances take beside their linear memories, in bytes.
type Memory struct {
	Code   int64 // machine code
	Image  int64 // of the image that instances begin as
	Tables int64 // of the tables of its instances
}

// Memory is what the program takes now.
func (p *Program) Memory() Memory {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := Memory{Code: p.codeBytes, Tables: int64(len(p.instances)) * p.tableBytes}
	if p.image != nil {
		m.Image = p.image.bytes
	}
	return m
}

// takeBuffer takes what a buffer of n bytes is beyond what an instance takes anyway. It
// reports whether the buffer may be kept: it need not be, so it leaves the budget to others.
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

// shortage is the error of a call in which the host had no memory for the guest. The
// guest has seen that its memory did not grow, so whatever it answers is void.
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

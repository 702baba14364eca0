//go:build wasip1

package guest

import (
	"runtime"
	"runtime/debug"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// The module's only service, and its mailbox. Go's garbage collector does not move memory,
// so the mailbox's address is valid until the next reserve.
var (
	module  interface{ exchange([]byte) []byte }
	mailbox = make([]byte, 64<<10)
)

// register makes s the module's service.
func register(s interface{ exchange([]byte) []byte }) {
	if module != nil {
		misuse("a module holds one service; guest.New was called twice")
	}
	// Runaway recursion must fail long before it has used up the memory.
	debug.SetMaxStack(1 << 20)
	module = s
}

//go:wasmimport bulkhead_v1 log
func hostLog(level uint32, ptr unsafe.Pointer, n uint32)

//go:wasmimport bulkhead_v1 fault
func hostFault(ptr unsafe.Pointer, n uint32)

func logLine(level abi.LogLevel, text string) {
	hostLog(uint32(level), unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
}

// misuse reports a mistake in how the module is written, and ends its start.
func misuse(message string) {
	message = "guest: " + message
	hostFault(unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
	panic(message)
}

// maxMailbox bounds the mailbox, so that a wrong size cannot use up the memory. In bytes.
const maxMailbox = 64 << 20

//go:wasmexport bulkhead_v1_reserve
func reserve(n uint32) unsafe.Pointer {
	if n > maxMailbox {
		return nil
	}
	if int(n) > len(mailbox) {
		mailbox = make([]byte, (int(n)+4095)&^4095)
	}
	return unsafe.Pointer(unsafe.SliceData(mailbox))
}

//go:wasmexport bulkhead_v1_call
func call(n uint32) uint64 {
	if module == nil {
		misuse("the module has no service; call guest.New in a package variable")
	}
	if uint64(n) > uint64(len(mailbox)) {
		misuse("the host sent more than it reserved")
	}
	out := module.exchange(mailbox[:n:n])
	if len(out) == 0 {
		return 0
	}
	return abi.PackRange(uint32(uintptr(unsafe.Pointer(unsafe.SliceData(out)))), uint32(len(out)))
}

// leaked reports whether there are more goroutines than before.
func leaked(before int) bool { return runtime.NumGoroutine() > before }

//go:build !wasip1

package guest

import (
	"runtime"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// register does nothing natively: tests may have many services in one program.
func register(interface{ Exchange([]byte) []byte }) {}

// NativeLog, if not nil, gets the log lines of services that run natively. It is for
// test kits; set it before any service runs.
var NativeLog func(level abi.LogLevel, text string)

func logLine(level abi.LogLevel, text string) {
	if NativeLog != nil {
		NativeLog(level, text)
	}
}

func misuse(message string) { panic("guest: " + message) }

// leftBehind reports whether there are more goroutines than before. Natively the
// test's own come and go, so one that ends soon does not count.
func leftBehind(before int) bool {
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return false
		}
		runtime.Gosched()
	}
	return true
}

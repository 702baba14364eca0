//go:build !wasip1

package guest

import (
	"reflect"
	"runtime"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/kit"
)

func init() {
	kit.Of = func(service any) kit.Guest { return service.(interface{ hooks() kit.Guest }).hooks() }
}

func (s *Service[S]) hooks() kit.Guest { return hooks[S]{s} }

// hooks is what test kits may do with a service.
type hooks[S any] struct{ service *Service[S] }

func (h hooks[S]) Exchange(request []byte) []byte { return h.service.exchange(request) }

func (h hooks[S]) EventNumber(event any) (uint16, bool) {
	t := h.service.eventOf(reflect.TypeOf(event))
	if t == nil {
		return 0, false
	}
	return t.id, true
}

// register does nothing natively: one test program may hold many services.
func register(interface{ exchange([]byte) []byte }) {}

func logLine(level abi.LogLevel, text string) {
	if kit.Log != nil {
		kit.Log(level, text)
	}
}

func misuse(message string) { panic("guest: " + message) }

// leaked reports whether there are more goroutines than before. Natively the test program
// has goroutines of its own that come and go, so goroutines that end soon do not count.
func leaked(before int) bool {
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return false
		}
		runtime.Gosched()
	}
	return true
}

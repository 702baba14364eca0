//go:build !wasip1

package guest_test

import (
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/kit"
)

// The message and the place of a panic are in the log.
func TestAPanicIsLogged(t *testing.T) {
	var lines []string
	kit.Log = func(level guest.LogLevel, text string) {
		if level == guest.LogError {
			lines = append(lines, text)
		}
	}
	defer func() { kit.Log = nil }()
	s := guest.New[state]("svc")
	guest.Command(s, "c", func(*guest.Tx[state], struct{}) (struct{}, error) { panic("boom") })
	exchange(s, abi.AppendOpen(nil, 0, 0, "k", nil))
	exchange(s, command(0, 0, ""))
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "panic: boom at ") ||
		!strings.Contains(lines[0], "module_native_test.go:") {
		t.Errorf("the log has %q", lines)
	}
}

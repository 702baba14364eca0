package meteringtest

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// A module that grows beyond the limit is refused while it is written, and the error says how large
// it had become. A module that is not refused is within the limit. In both cases memory is bounded by
// the size of the module.
func TestGrowthIsBounded(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	const size = 256 << 10
	refused := 0
	for _, b := range testguest.Growers(size) {
		m, err := wasmbin.Parse(b.Module, wasmbin.DefaultLimits())
		if err != nil {
			t.Fatalf("%s: %v", b.Name, err)
		}
		free, err := metering.Rewrite(m, metering.Options{})
		if err != nil {
			t.Errorf("%s, without a bound: %v", b.Name, err)
			continue
		}
		maxBytes := 3 * int64(len(b.Module))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		bounded, err := metering.Rewrite(m, metering.Options{MaxBytes: maxBytes})
		runtime.ReadMemStats(&after)
		taken := int64(after.TotalAlloc - before.TotalAlloc)
		t.Logf("%-24s %8d bytes become %8d, with %8d of memory: %v", b.Name, len(b.Module), len(free.Binary), taken,
			err)
		var e *metering.Error
		switch grown := int64(len(free.Binary)) > maxBytes; {
		case grown != (err != nil):
			t.Errorf("%s becomes %d bytes of %d that it may: %v", b.Name, len(free.Binary), maxBytes, err)
		case err == nil && int64(len(bounded.Binary)) > maxBytes:
			t.Errorf("%s: %d bytes were let through", b.Name, len(bounded.Binary))
		case err != nil && (!errors.As(err, &e) || !strings.Contains(err.Error(), "grows too much")):
			t.Errorf("%s: %v", b.Name, err)
		case grown:
			refused++
		}
		if taken > 256*int64(len(b.Module)) { // most of it is for the plan of a function as it grows
			t.Errorf("%s: rewriting %d bytes took %d", b.Name, len(b.Module), taken)
		}
	}
	if refused == 0 {
		t.Error("none of them grows")
	}
}

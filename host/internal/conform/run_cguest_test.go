//go:build cguest

package conform

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi/abitest"
)

// The C guest keeps all rules also if this machine's clang builds it.
func TestFreshlyBuiltCGuestKeepsAllRules(t *testing.T) {
	module, err := abitest.BuildCGuest("../../../abi/abitest/testdata/c-guest/counter.c")
	if err != nil {
		t.Fatal(err)
	}
	allPassed(t, run(t, module, Options{}))
}

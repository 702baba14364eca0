//go:build cguest

package conform

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi/abitest"
)

// What this machine's clang makes of the C guest keeps the rules as the module
// that is kept in the repository does.
func TestFreshlyBuiltCGuestKeepsAllRules(t *testing.T) {
	module, err := abitest.BuildCGuest("../../../abi/abitest/testdata/c-guest/counter.c")
	if err != nil {
		t.Fatal(err)
	}
	allPassed(t, run(t, module, Options{}))
}

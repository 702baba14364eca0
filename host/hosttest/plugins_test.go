package hosttest_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/plugins/bank/banktest"
	"github.com/bulkhead-wasm/bulkhead/plugins/counter/countertest"
	"github.com/bulkhead-wasm/bulkhead/plugins/orders/orderstest"
)

// The same tables that the plugins' own tests run natively, on the compiled modules.
func TestPluginsAsModules(t *testing.T) {
	for name, run := range map[service.Name]func(*testing.T, guesttest.Driver){
		"bank": banktest.Run, "counter": countertest.Run, "orders": orderstest.Run,
	} {
		t.Run(string(name), func(t *testing.T) {
			run(t, hosttest.Driver(t, name, hosttest.Guest(t, string(name))))
		})
	}
}

package hosttest_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/bulkhead-wasm/bulkhead/plugins/bank"
	"github.com/bulkhead-wasm/bulkhead/plugins/bank/banktest"
	"github.com/bulkhead-wasm/bulkhead/plugins/counter"
	"github.com/bulkhead-wasm/bulkhead/plugins/counter/countertest"
	"github.com/bulkhead-wasm/bulkhead/plugins/orders"
	"github.com/bulkhead-wasm/bulkhead/plugins/orders/orderstest"
)

// The same tables that the plugins' own tests run natively, on the compiled modules.
func TestPluginsAsModules(t *testing.T) {
	t.Parallel()
	raced.Skip(t, "it compiles Go guests, and has one goroutine")
	for name, run := range map[service.Name]func(*testing.T, guesttest.Driver){
		"bank": banktest.Run, "counter": countertest.Run, "orders": orderstest.Run,
	} {
		t.Run(string(name), func(t *testing.T) {
			d := hosttest.Driver(t, name, hosttest.Guest(t, string(name)))
			run(t, d)
			if got, want := describe(t, d), describe(t, native[name]); got != want {
				t.Errorf("the module says of itself\n%s\nand natively\n%s", got, want)
			}
		})
	}
}

// native are the plugins in this process. Their manifests, with the hash of the state's form, do not depend
// on the target.
var native = map[service.Name]guesttest.Driver{
	"bank": guesttest.Native(bank.Service), "counter": guesttest.Native(counter.Service),
	"orders": guesttest.Native(orders.Service),
}

func describe(t *testing.T, d guesttest.Driver) string {
	out, err := d.Exchange(abi.AppendDescribe(nil))
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := abi.DecodeResponse(out)
	if err != nil {
		t.Fatal(err)
	}
	body, err := abi.DecodeBody(&r)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

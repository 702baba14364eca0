package sandbox

import (
	"context"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Each hostile guest does what it says: it is a service that starts and answers,
// or one that goes on until something ends it.
func TestHostileGuests(t *testing.T) {
	for _, g := range testguest.HostileGuests() {
		t.Run(g.Name, func(t *testing.T) {
			l := service.Limits{Fuel: 20_000_000}
			if g.Name == "slowinit" { // it is not waited for
				_, err := shared().Compile(context.Background(), "", g.Make("hostile"), service.Limits{Fuel: 100_000}, service.Settings{}, nil)
				if err == nil || !strings.Contains(err.Error(), "guest_fuel") {
					t.Errorf("its start: %v", err)
				}
				return
			}
			p := compile(t, g.Make("hostile"), l)
			if p.Module().Manifest.Service != "hostile" {
				t.Errorf("the service is called %q", p.Module().Manifest.Service)
			}
			for _, kind := range []abi.RequestKind{abi.ReqCommand, abi.ReqQuery} {
				i := instantiate(t, p, nil)
				if err := ask(i, abi.ReqOpen, 3); err != nil {
					t.Fatal(err)
				}
				err := ask(i, kind, 3)
				switch got := service.KindOf(err); {
				case g.Name == "faults":
					if got != service.KindTrap {
						t.Errorf("%v: %v", kind, err)
					}
				case g.Ends && err != nil:
					t.Errorf("%v: %v", kind, err)
				case !g.Ends && got != service.KindGuestFuel && got != service.KindGuestDeadline:
					t.Errorf("%v does not go on: %v", kind, err)
				}
				if i.Broken() {
					if err := i.Reset(context.Background()); err != nil {
						t.Fatal(err)
					}
				}
				if err := ask(i, abi.ReqOpen, 4); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			}
		})
	}
}

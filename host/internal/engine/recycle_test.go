package engine

import (
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A guest whose memory only grows is reset between commands, again and again, and no client
// notices: every command succeeds, in order.
func TestAWornGuestIsRecycledUnseen(t *testing.T) {
	const commands = 400
	e, guests, _ := startBank(t, 1, func(o *Options) {
		g := o.guests(t)[0]
		g.leak, g.worn = 1<<12, 1<<17
	})
	for n := range commands {
		key := service.Key(fmt.Sprintf("account-%d", n%3))
		r, err := send(e, service.Command{Service: "bank", Key: key, Type: "deposit", Data: []byte("1")})
		if err != nil {
			t.Fatalf("command %d: %v", n, err)
		}
		if want := service.Version(n/3 + 1); r.Version != want {
			t.Fatalf("command %d left version %d, want %d", n, r.Version, want)
		}
	}
	_, counters := counted(t, e)
	if counters.Failed != 0 || counters.Committed != commands {
		t.Errorf("counters %+v", counters)
	}
	if counters.Recycled < commands/20 || counters.Resets != counters.Recycled {
		t.Errorf("%d recycled, %d reset", counters.Recycled, counters.Resets)
	}
	if counters.Fuel != 2*commands {
		t.Errorf("fuel %d, the guest spent %d", counters.Fuel, 2*commands)
	}
	if g := guests[0]; g.memory > g.worn {
		t.Errorf("memory %d is beyond %d", g.memory, g.worn)
	}
}

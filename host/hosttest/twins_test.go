package hosttest_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/bulkhead-wasm/bulkhead/plugins/bank/banktest"
	"github.com/bulkhead-wasm/bulkhead/plugins/counter/countertest"
	"github.com/bulkhead-wasm/bulkhead/plugins/orders/orderstest"
)

// twins are sandboxes of one module that get the same requests.
type twins struct {
	all   []*sandbox.Instance
	asked int
}

// Exchange sends a request to each of them; the answers must have the same bytes and the same fuel.
func (w *twins) Exchange(request []byte) ([]byte, error) {
	w.asked++
	var first []byte
	var fuel uint64
	for n, i := range w.all {
		before := i.Fuel()
		answer, err := i.Exchange(context.Background(), request)
		if err != nil {
			return nil, err
		}
		spent := i.Fuel() - before
		switch {
		case n == 0:
			first, fuel = answer, spent
		case !bytes.Equal(answer, first):
			return nil, fmt.Errorf("twin %d answers %q, the first %q", n, answer, first)
		case spent != fuel:
			return nil, fmt.Errorf("twin %d spent %d fuel on request %d, the first %d", n, spent, w.asked, fuel)
		}
	}
	if fuel == 0 {
		return nil, fmt.Errorf("request %d cost nothing", w.asked)
	}
	return first, nil
}

// Every plugin is deterministic: in all its tests, sandboxes from mapped and from copied images return the
// same bytes for exactly the same fuel.
func TestPluginsAreDeterministic(t *testing.T) {
	t.Parallel()
	raced.Skip(t, "it compiles Go guests, and has one goroutine")
	for name, run := range map[service.Name]func(*testing.T, guesttest.Driver){
		"bank": banktest.Run, "counter": countertest.Run, "orders": orderstest.Run,
	} {
		t.Run(string(name), func(t *testing.T) {
			w := &twins{}
			for _, copying := range []bool{false, true} {
				r, err := sandbox.NewRuntime(sandbox.Options{CopyImages: copying})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = r.Close(context.Background()) })
				p, err := r.Compile(t.Context(), name, hosttest.Guest(t, string(name)),
					service.Limits{CompileTime: 10 * time.Minute}, service.Settings{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = p.Close(context.Background()) })
				if start := p.Start(); !start.Image || start.Fuel == 0 {
					t.Errorf("%+v", start)
				}
				for range 2 {
					i, err := p.Instantiate(t.Context(), nil)
					if err != nil {
						t.Fatal(err)
					}
					w.all = append(w.all, i)
				}
			}
			run(t, w)
			if w.asked == 0 {
				t.Error("nothing was asked")
			}
		})
	}
}

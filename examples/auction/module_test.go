package auction_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/examples/auction"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// The service runs as a module in a real host, and keeps its state across a restart.
func TestAuctionInAHost(t *testing.T) {
	raced.Skip(t, "it compiles a Go guest, and the tests of host have its concurrency")
	h := hosttest.New(t)
	h.MustDeploy("auction", module(t))
	send := func(kind service.Type, data string) (auction.Lot, error) {
		t.Helper()
		r, err := h.Send(t.Context(), service.Command{Service: "auction", Key: "clock", Type: kind, Data: []byte(data)})
		var l auction.Lot
		if err == nil {
			err = json.Unmarshal(r.Data, &l)
		}
		return l, err
	}
	if l, err := send("offer", `{"title":"A clock","minutes":10}`); err != nil || l.Title != "A clock" {
		t.Fatalf("offered: %+v, %v", l, err)
	}
	if l, err := send("bid", `{"bidder":"Ada","amount":5000}`); err != nil || l.Leader != "Ada" || l.Bids != 1 {
		t.Fatalf("bid: %+v, %v", l, err)
	}
	h.Restart()
	refused(t, "too_low")(send("bid", `{"bidder":"Grace","amount":100}`))
	refused(t, "too_early")(send("hammer", `{}`))
	if l, err := send("bid", `{"bidder":"Grace","amount":10000}`); err != nil || l.Leader != "Grace" || l.Bids != 2 ||
		l.Highest != 10000 {
		t.Fatalf("bid after the restart: %+v, %v", l, err)
	}
}

// refused checks that a command was refused with a code.
func refused(t *testing.T, code string) func(auction.Lot, error) {
	return func(_ auction.Lot, err error) {
		t.Helper()
		var e *service.Error
		if service.KindOf(err) != service.KindRejected || !errors.As(err, &e) || e.Code != code {
			t.Errorf("got %v, want a refusal with %s", err, code)
		}
	}
}

func module(t *testing.T) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "auction.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", file, "./wasm")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wasm, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

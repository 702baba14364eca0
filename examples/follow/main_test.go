package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// The example misses nothing when the real program is killed and started again on the same address.
func TestFollowMissesNothing(t *testing.T) {
	prove.SkipShort(t, "it starts a whole host")
	b := build(t)
	host := b.serve(t)
	b.bulkhead(t, "send", "bank/alice", "open", `{"owner":"Alice"}`)
	b.bulkhead(t, "send", "bank/bob", "open", `{"owner":"Bob"}`)
	b.bulkhead(t, "send", "bank/alice", "deposit", `{"amount":100}`)

	enough := errors.New("enough")
	model := richest{balances: map[string]int64{}}
	var order []string
	seen := 0
	err := follow(t.Context(), "http://"+b.address+"/v1/services/bank/events", func(e event) error {
		if model.apply(e) {
			order = append(order, model.String())
		}
		switch seen++; seen {
		case 3:
			b.bulkhead(t, "send", "bank/bob", "deposit", `{"amount":250}`)
			_ = host.Process.Kill()
			_ = host.Wait()
			b.serve(t)
			b.bulkhead(t, "send", "bank/bob", "withdraw", `{"amount":50}`)
		case 5:
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if want := "[alice 100 bob 250, alice 100]"; fmt.Sprint(order) != want || model.balances["bob"] != 200 {
		t.Errorf("the model became %v with %v, want %s", order, model.balances, want)
	}
	err = follow(t.Context(), "http://"+b.address+"/v1/services/nobody/events", func(event) error { return nil })
	if err == nil {
		t.Error("a service that is not there is followed")
	}
}

// The host's last message on a stream is not an event: it ends the following.
func TestTheLastWordIsNoEvent(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w,
			"id: 1\ndata: {\"type\":\"opened\",\"id\":\"1\"}\n\nevent: problem\ndata: "+
				"{\"type\":\"urn:bulkhead:problem:not-found\"}\n\n")
	}))
	defer s.Close()
	var seen []string
	err := follow(t.Context(), s.URL, func(e event) error { seen = append(seen, e.Type); return nil })
	if err == nil || !strings.Contains(err.Error(), "not-found") || fmt.Sprint(seen) != "[opened]" {
		t.Errorf("%v, %v", seen, err)
	}
}

// built has the program and the bank's module, and the address on which the program listens.
type built struct{ program, bank, data, address string }

func build(t *testing.T) built {
	t.Helper()
	dir := t.TempDir()
	b := built{program: filepath.Join(dir, "bulkhead"), bank: filepath.Join(dir, "bank.wasm"),
		data: filepath.Join(dir, "data")}
	for _, c := range []struct {
		env  []string
		args []string
	}{
		{nil, []string{"build", "-o", b.program, "../../host/cmd/bulkhead"}},
		{[]string{"GOOS=wasip1", "GOARCH=wasm"}, []string{"build", "-buildmode=c-shared", "-o", b.bank,
			"../../plugins/bank/wasm"}},
	} {
		cmd := exec.Command("go", c.args...)
		cmd.Env = append(os.Environ(), c.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", c.args, err, out)
		}
	}
	b.address = hosttest.Address(t)
	return b
}

// serve starts the host with the bank and waits until it serves.
func (b *built) serve(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(b.program, "serve", "--json", "--data", b.data, "--listen", b.address, "--demo", b.bank)
	cmd.Env = append(os.Environ(), "BULKHEAD_LIMIT_COMPILE_TIME=10m") // beside other tests
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var said struct{ Event string }
		if json.Unmarshal(lines.Bytes(), &said) == nil && said.Event == "serving" {
			return cmd
		}
	}
	t.Fatalf("the host ended: %v", cmd.Wait())
	return nil
}

func (b *built) bulkhead(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(b.program,
		append(args, "--host", "http://"+b.address)...).CombinedOutput(); err != nil {
		t.Errorf("bulkhead %v: %v\n%s", args, err, out)
	}
}

package abi_test

import (
	"bytes"
	"go/build"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

// workload is the pair of messages that is measured: a command with a body of 200 bytes, and an
// outcome with two events and a reply.
type workload struct {
	seed     [abi.SeedSize]byte
	metadata abi.Metadata
	body     []byte
	buf      []byte
}

func newWorkload() *workload {
	return &workload{
		metadata: abi.Metadata(nil).AppendPair("traceparent",
			"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
		body: bytes.Repeat([]byte("b"), 200),
		buf:  make([]byte, 0, 4096),
	}
}

func (w *workload) command(t testing.TB) {
	b := abi.AppendCommand(w.buf[:0], 7, 1, 41, 1_700_000_000_000_000_000, &w.seed, "cmd-0123456789", w.metadata,
		w.body)
	r, rest, err := abi.DecodeRequest(b)
	if err != nil || len(rest) != 0 {
		t.Fatal(err)
	}
	c, err := abi.DecodeCommand(&r)
	if err != nil || len(c.Body) != 200 {
		t.Fatal(err)
	}
}

func (w *workload) outcome(t testing.TB) {
	b := abi.AppendEvent(w.buf[:0], 7, 0, 1, w.body[:80], nil)
	b = abi.AppendEvent(b, 7, 0, 2, w.body[:80], nil)
	b = abi.AppendBody(b, abi.Response{Kind: abi.RespReply, Slot: 7, Aux: 2}, w.body[:40])
	bodies := 0
	for len(b) > 0 {
		r, rest, err := abi.DecodeResponse(b)
		if err != nil {
			t.Fatal(err)
		}
		switch r.Kind {
		case abi.RespEvent:
			e, err := abi.DecodeEvent(&r)
			if err != nil {
				t.Fatal(err)
			}
			bodies += len(e.Body)
		case abi.RespReply:
			body, err := abi.DecodeBody(&r)
			if err != nil {
				t.Fatal(err)
			}
			bodies += len(body)
		}
		b = rest
	}
	if bodies != 200 {
		t.Fatal("lost a body")
	}
}

// Errors do not allocate either: a hostile guest must not make the host allocate.
func (w *workload) refusals(t testing.TB) {
	b := abi.AppendQuery(w.buf[:0], 1, 0, 0, 0, w.body)
	if _, _, err := abi.DecodeRequest(b[:40]); err == nil {
		t.Fatal("truncated frame accepted")
	}
	r, _, err := abi.DecodeRequest(b)
	if err != nil {
		t.Fatal(err)
	}
	r.Payload = r.Payload[:20]
	if _, err := abi.DecodeQuery(&r); err == nil {
		t.Fatal("truncated payload accepted")
	}
	if err := w.metadata[:9].Valid(); err == nil {
		t.Fatal("truncated metadata accepted")
	}
	if _, ok := w.metadata.Get("traceparent"); !ok {
		t.Fatal("pair not found")
	}
}

func TestNoAllocations(t *testing.T) {
	w := newWorkload()
	for name, f := range map[string]func(testing.TB){"command": w.command, "outcome": w.outcome,
		"refusals": w.refusals} {
		if n := testing.AllocsPerRun(100, func() { f(t) }); n != 0 {
			t.Errorf("%s: %v allocations a run, want none", name, n)
		}
	}
}

func BenchmarkCommand(b *testing.B) {
	w := newWorkload()
	b.ReportAllocs()
	for b.Loop() {
		w.command(b)
	}
}

func BenchmarkOutcome(b *testing.B) {
	w := newWorkload()
	b.ReportAllocs()
	for b.Loop() {
		w.outcome(b)
	}
}

// gotool runs the go command for another platform.
func gotool(t *testing.T, goos, goarch string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("GOOS=%s GOARCH=%s go %s: %v\n%s", goos, goarch, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Every Go guest contains this package and all that it imports: a new import costs size and
// start-up time in each of them. strconv brings unicode/utf8 along.
func TestDependencies(t *testing.T) {
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"strconv", "unicode/utf8"}; !slices.Equal(pkg.Imports, want) {
		t.Errorf("imports %v, want %v", pkg.Imports, want)
	}
	deps := strings.Fields(gotool(t, "wasip1", "wasm", "list", "-deps", "."))
	for _, heavy := range []string{"fmt", "reflect", "encoding/json", "encoding/binary", "time", "os", "io", "sync",
		"sort", "unicode"} {
		if slices.Contains(deps, heavy) {
			t.Errorf("%s is among the dependencies", heavy)
		}
	}
	for _, dep := range deps {
		if strings.Contains(dep, ".") && dep != "github.com/bulkhead-wasm/bulkhead/abi" {
			t.Errorf("%s is not of the standard library", dep)
		}
	}
}

// An int has 64 bits in guests under wasip1, but a host may be built for 32 bits.
func TestBuildsElsewhere(t *testing.T) {
	gotool(t, "wasip1", "wasm", "build", ".")
	gotool(t, "linux", "386", "vet", ".")
}

package compile

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero"
	"go.uber.org/goleak"
)

// The test binary is also a compiler process: "compile" follows its name.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "compile" {
		os.Exit(Serve(context.Background(), os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// quick are limits of a small guest.
var quick = service.Limits{Fuel: 20_000_000, CallTime: time.Minute, MemoryBytes: 8 << 20}

// compilerCommand is the test binary as a compiler process; see TestMain.
func compilerCommand() []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return []string{self, "compile"}
}

func newCompiler(t testing.TB, o Options) *Compiler {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// compileWith compiles a module, and drops the result.
func compileWith(t testing.TB, c *Compiler, module []byte, l service.Limits) error {
	t.Helper()
	r := c.Runtime(context.Background())
	var compiled wazero.CompiledModule
	unload := func() {
		if compiled != nil {
			_ = compiled.Close(context.Background())
		}
		_ = r.Close(context.Background())
	}
	l = l.WithDefaults()
	_, err := c.Compile(context.Background(), Request{
		Module: Loaded(module), Order: OrderOf(l, service.Settings{}), Limits: l, Tell: func(Stage) {}, Unload: unload,
		Load: func(ctx context.Context, _ *Facts, module []byte, _ int64) (err error) {
			compiled, err = Module(ctx, r, module)
			return err
		},
	})
	if err == nil {
		unload()
	}
	return err
}

// prepared is a verified and rewritten module, with its facts.
func prepared(t testing.TB, module []byte) (*Facts, []byte) {
	t.Helper()
	f, whole, err := rewrite(module, OrderOf(quick.WithDefaults(), service.Settings{}), func(Stage) {})
	if err != nil {
		t.Fatal(err)
	}
	return f, whole
}

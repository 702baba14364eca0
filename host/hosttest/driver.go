package hosttest

import (
	"context"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Driver runs a compiled module in a sandbox, for tables of package guesttest.
func Driver(t testing.TB, name service.Name, module []byte) guesttest.Driver {
	t.Helper()
	runtime, err := sandbox.NewRuntime(sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := runtime.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	program, err := runtime.Compile(t.Context(), name, module, service.Limits{CompileTime: compileTime},
		service.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := program.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	instance, err := program.Instantiate(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return driver{instance}
}

type driver struct{ instance *sandbox.Instance }

func (d driver) Exchange(request []byte) ([]byte, error) {
	return d.instance.Exchange(context.Background(), request)
}

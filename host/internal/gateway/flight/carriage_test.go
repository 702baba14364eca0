package flight

import (
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func accounts() *Accounts {
	return NewAccounts(Options{Host: budget.New(budget.Limits{budget.FlightBytes: 100 << 20}), ConnectionBytes: 1 << 20,
		Logger: slog.Default()})
}

// The errors of a service contain texts of a guest, and are bounded as replies are.
func TestLargeErrorsAreCounted(t *testing.T) {
	f := accounts()
	one := f.Join("test", io.NopCloser(nil))
	large := &service.Error{Kind: service.KindRejected, Code: "code", Message: strings.Repeat("é", 300_000), Fuel: 7}
	c, err := one.Carry(0, CallBytes)
	if err != nil {
		t.Fatal(err)
	}
	c.Unload()
	if got := c.Fit(large); got != error(large) || one.account.Used(budget.FlightBytes) < 600_000 {
		t.Errorf("with room for it: %d bytes are taken", one.account.Used(budget.FlightBytes))
	}
	second, err := one.Carry(0, CallBytes)
	if err != nil {
		t.Fatal(err)
	}
	second.Unload()
	var short *service.Error
	if !errors.As(second.Fit(large), &short) || short.Kind != large.Kind || short.Code != large.Code ||
		short.Fuel != large.Fuel || len(short.Message) > 2*maxErrorText ||
		!strings.HasPrefix(short.Message, "éé") {
		t.Errorf("without room for it: %+v", short)
	}
	c.Free()
	second.Free()
	one.Leave()
	if n := f.group.Used(budget.FlightBytes); n != 0 || len(f.open) != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
}

// In any order of giving up the answer and releasing the data, everything is given back once, and the account
// stays open as long as it is needed.
func TestCarriage(t *testing.T) {
	for _, order := range []string{"UF", "FU", "ULF", "LUF", "UFL", "FUL", "UUF", "FUF", "ULLFF"} {
		f := accounts()
		one := f.Join("test", io.NopCloser(nil))
		if err := one.Take(1000); err != nil {
			t.Fatal(err)
		}
		c, err := one.Carry(1000, CallBytes)
		if err != nil {
			t.Fatal(err)
		}
		one.Leave() // the connection is gone before its call
		for _, step := range order {
			switch step {
			case 'U':
				c.Unload()
			case 'F':
				c.Free()
			case 'L':
				_ = c.Load(500)
			}
			if used := f.group.Used(budget.FlightBytes); used < 0 || used > 3000 {
				t.Errorf("%s: after %c %d are taken", order, step, used)
			}
		}
		if n := f.group.Used(budget.FlightBytes); n != 0 || one.Use() || len(f.open) != 0 {
			t.Errorf("%s: %d bytes are still taken", order, n)
		}
	}
}

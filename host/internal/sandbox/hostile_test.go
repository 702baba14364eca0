package sandbox

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// Each hostile guest does what it claims: it is a service that starts and answers, or one that runs until
// something ends it.
func TestHostileGuests(t *testing.T) {
	for _, g := range testguest.HostileGuests() {
		t.Run(g.Name, func(t *testing.T) {
			if g.Name == "straight" {
				prove.SkipShort(t, "it compiles 200,000 instructions at once")
				raced.Skip(t, "compiling 200,000 instructions at once takes minutes, and has one goroutine")
			}
			l := service.Limits{Fuel: 20_000_000, CompileTime: time.Hour}
			if g.Name == "logframes" { // which costs 60,000,000
				l.Fuel = 100_000_000
			}
			if g.Name == "slowinit" { // its start takes too long to wait for it
				_, err := shared().Compile(context.Background(), "", g.Make("hostile"), service.Limits{Fuel: 100_000},
					service.Settings{}, nil)
				if err == nil || !strings.Contains(err.Error(), "guest_fuel") {
					t.Errorf("its start: %v", err)
				}
				return
			}
			p := mustCompile(t, g.Make("hostile"), l)
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

// A Log frame costs what the import does, and all of them stay within the limit of a call, where each line
// counts more than its text.
func TestLogFramesAreLogCalls(t *testing.T) {
	const limit = 10_000
	frames := func(n int) []byte {
		var b []byte
		for range n {
			b = abi.AppendBody(b, abi.Response{Kind: abi.RespLog, Slot: testguest.LiarSlot, Aux: uint32(abi.LogInfo)},
				[]byte("four"))
		}
		return abi.AppendBody(b, abi.Response{Kind: abi.RespReply, Slot: testguest.LiarSlot}, nil)
	}
	spent := func(n int, fuel int64) (uint64, int, error) {
		sink := &logSink{}
		module := testguest.Liar{Answers: map[abi.RequestKind][]byte{abi.ReqCommand: frames(n)}}.Bytes()
		i := instantiate(t, mustCompile(t, module, service.Limits{LogBytes: limit, Fuel: fuel}), sink)
		before := i.Fuel()
		err := ask(i, abi.ReqCommand, testguest.LiarSlot)
		if i.Broken() != (err != nil) {
			t.Errorf("%v, and broken is %v", err, i.Broken())
		}
		return i.Fuel() - before, len(sink.lines), err
	}
	const each = fuelHostCall + 4*fuelLogByte + fuelLogLine
	none, _, _ := spent(0, 1_000_000)
	if got, lines, err := spent(10, 1_000_000); err != nil || lines != 10 || got != none+10*each {
		t.Errorf("10 frames: %d fuel more, %d lines, %v; want %d", got-none, lines, err, 10*each)
	}
	// The last line that fits, one that ends the log with its mark, and then 500 each.
	const fit = limit / (4 + lineOverhead)
	if got, lines, err := spent(1000, 2_000_000); err != nil || lines > fit+2 || got != none+1000*fuelHostCall+
		(fit+1)*(each-fuelHostCall) {
		t.Errorf("1,000 frames: %d fuel more, %d lines, %v", got-none, lines, err)
	}
	if got, lines, err := spent(100, 100_000); service.KindOf(err) != service.KindGuestFuel || got != 100_000 ||
		lines > 10 {
		t.Errorf("frames that there is no fuel for: %d fuel, %d lines, %v", got, lines, err)
	}
}

// When the log is full, only the start of a panic is read.
func TestAFullLogLooksAtNothing(t *testing.T) {
	g := guestLog{limit: 1000}
	g.begin()
	for !g.cut {
		if w := g.wanted(0); w < 1 || w > 1001 {
			t.Fatalf("%d bytes of stdout are wanted with %d used", w, g.used)
		}
		g.write(0, []byte("a line\n"))
	}
	if g.wanted(0) != 0 || g.wanted(1) != panicBytes || g.cost(100, 3) != 0 {
		t.Errorf("wanted are %d and %d bytes", g.wanted(0), g.wanted(1))
	}
	g.write(1, make([]byte, panicBytes))
	if g.wanted(1) != 0 {
		t.Errorf("%d bytes of stderr are wanted", g.wanted(1))
	}
}

// Random bytes are the same whether they are drawn at once or in steps.
func TestRandomInSteps(t *testing.T) {
	draw := func(steps ...int) (all []byte) {
		var a ambient
		a.begin(0, [abi.SeedSize]byte{7})
		for _, n := range steps {
			b := make([]byte, n)
			a.random(b)
			all = append(all, b...)
		}
		return all
	}
	if !bytes.Equal(draw(3, 200_000, 5), draw(3, stepBytes, stepBytes, stepBytes, 200_000-3*stepBytes, 5)) {
		t.Error("the bytes differ")
	}
}

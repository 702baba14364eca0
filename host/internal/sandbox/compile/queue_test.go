package compile

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// While large modules have all their slots, a small one is compiled, and a stored one is loaded; another
// large one waits.
func TestSmallModulesDoNotWait(t *testing.T) {
	small, large := testguest.Counter("c"), testguest.Growers(32 << 10)[2].Module
	c := newCompiler(t, Options{Command: compilerCommand(), SmallModule: len(small)})
	if err := compileWith(t, c, large, quick); err != nil {
		t.Fatal(err)
	}
	for range cap(c.slots.large) {
		c.slots.large <- struct{}{}
	}
	if err := compileWith(t, c, small, quick); err != nil {
		t.Errorf("a small module: %v", err)
	}
	if err := compileWith(t, c, large, quick); err != nil {
		t.Errorf("a large module that is stored: %v", err)
	}
	limits := quick
	limits.CompileTime = 20 * time.Millisecond
	var e *service.Error
	if err := compileWith(t, c, testguest.Growers(64 << 10)[2].Module, limits); !errors.As(err, &e) ||
		e.Kind != service.KindOverloaded ||
		e.Resource != "compilations" || e.Used != int64(cap(c.slots.large)) || e.Limit != int64(2*cap(c.slots.large)) ||
		e.RetryAfter <= 0 {
		t.Errorf("another large module: %+v", err)
	}
	for range cap(c.slots.large) {
		<-c.slots.large
	}
	if n := c.slots.taken(); n != 0 || len(c.turns.taken) != 0 {
		t.Errorf("%d slots and %d turns are still taken", n, len(c.turns.taken))
	}
}

// Small modules may take all slots, large ones half of them.
func TestSlots(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	s := newSlots(2, 10)
	fill := func(size int) (n int, release func()) {
		var all []func()
		for {
			free, ok := s.take(over, size)
			if !ok {
				return len(all), func() {
					for _, f := range all {
						f()
					}
				}
			}
			all = append(all, free)
		}
	}
	n, release := fill(10)
	if n != 4 {
		t.Errorf("%d small ones at a time", n)
	}
	release()
	n, release = fill(11)
	if n != 2 {
		t.Errorf("%d large ones at a time", n)
	}
	more, releaseMore := fill(1)
	if more != 2 {
		t.Errorf("%d small ones beside them", more)
	}
	got := make(chan func())
	go func() {
		free, _ := s.take(t.Context(), 11)
		got <- free
	}()
	release()
	(<-got)()
	releaseMore()
	if s.taken() != 0 {
		t.Errorf("%d are still taken", s.taken())
	}
}

func TestCompileTimeBySize(t *testing.T) {
	all := newCompiler(t, Options{Base: 10 * time.Second, PerMiB: 4 * time.Second})
	for _, c := range []struct {
		size int
		want time.Duration
	}{{0, 10 * time.Second}, {512 << 10, 12 * time.Second}, {5 << 20, 30 * time.Second}, {32 << 20, time.Minute}} {
		if got := all.compileTime(service.DefaultLimits(), c.size); got != c.want {
			t.Errorf("%d bytes have %v, want %v", c.size, got, c.want)
		}
	}
}

// While others compile, a caller waits for a slot, but not forever.
func TestTurns(t *testing.T) {
	var all turns
	end, ok := all.take(t.Context(), "a")
	if !ok {
		t.Fatal("the first turn")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := all.take(ctx, "a"); ok {
		t.Error("two had the same turn")
	}
	other, ok := all.take(ctx, "b")
	if !ok {
		t.Error("another turn was taken")
	}
	other()
	got := make(chan func())
	go func() {
		end, _ := all.take(t.Context(), "a")
		got <- end
	}()
	end()
	(<-got)()
	if len(all.taken) > 0 {
		t.Errorf("left: %v", all.taken)
	}
}

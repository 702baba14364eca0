package compile

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/prove"
)

// Each limit of the compiler process has its own message.
func TestCompilerLimits(t *testing.T) {
	all := newCompiler(t, Options{Command: compilerCommand()})
	bombs := map[string][]byte{}
	for _, b := range testguest.Bombs() {
		bombs[b.Name] = b.Module
	}
	for _, c := range []struct {
		bomb   string
		limits service.Limits
		want   string
	}{
		// Less than the module itself, which no service can ask for.
		{"size", service.Limits{CompileBytes: 8 << 20, CompileTime: time.Minute},
			"takes more memory than the limit of 8 MiB"},
		{"loops", service.Limits{CompileBytes: 1 << 30, CompileTime: 300 * time.Millisecond},
			"did not compile within 300ms"},
	} {
		_, err := all.apart(t.Context(), bombs[c.bomb], Request{
			Order: OrderOf(quick.WithDefaults(), service.Settings{}), Limits: c.limits, Tell: func(Stage) {},
		}, t.TempDir())
		if service.KindOf(err) != service.KindBadModule || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q is missing in %v", c.bomb, c.want, err)
		}
	}
}

// A compilation in this process that exceeds its time goes on after its caller has got an error. The next
// caller gets its result.
func TestALateCompilationIsKept(t *testing.T) {
	module := testguest.Counter("c")
	c := newCompiler(t, Options{Dir: t.TempDir()})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	ended := make(chan struct{})
	o := OrderOf(quick.WithDefaults(), service.Settings{})
	name := o.name(service.DigestOf(module))
	err := c.fill(t.Context(), over, name, module, Request{Order: o, Limits: quick, Tell: func(Stage) {}},
		func() { close(ended) })
	if err != nil && service.KindOf(err) != service.KindBadModule { // it may be quick
		t.Error(err)
	}
	<-ended
	if _, _, err := c.store.open(name, maxForm(int64(len(module)))); err != nil {
		t.Errorf("it is not there: %v", err)
	}
}

// A module that takes too long is refused in time. The compiler, which cannot be stopped, ends in the
// background, and Close waits for it.
func TestCompileTimeLimit(t *testing.T) {
	prove.SkipShort(t, "it waits for the limit")
	module := testguest.Liar{With: func(b *testguest.Builder) {
		for range 10_000 {
			b.Func(nil, nil, nil, testguest.Code(testguest.I32Const(8), testguest.I32Const(1), testguest.Store32(0)))
		}
		b.Custom("padding", make([]byte, 2<<20)) // so that it has the slot of a large one
	}}.Bytes()
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	err = compileWith(t, c, module, service.Limits{CompileTime: 5 * time.Millisecond})
	if service.KindOf(err) != service.KindBadModule || !strings.Contains(err.Error(), "did not compile within 5ms") {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	for len(c.slots.small) < cap(c.slots.small) { // the module that goes on is large
		c.slots.small <- struct{}{}
	}
	for len(c.slots.large) < cap(c.slots.large) {
		c.slots.large <- struct{}{}
	}
	err = compileWith(t, c, testguest.Counter("c"), service.Limits{CompileTime: 5 * time.Millisecond})
	if service.KindOf(err) != service.KindOverloaded {
		t.Errorf("while that is still going on: %v", err)
	}
	for range cap(c.slots.small) {
		<-c.slots.small
	}
	for range cap(c.slots.large) - 1 {
		<-c.slots.large
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

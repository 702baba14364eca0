package sandbox

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func mustWait(t *testing.T, p *fair.Place) {
	t.Helper()
	if err := p.Wait(&fair.Waiter{Context: t.Context(), Patience: 10 * time.Hour}); err != nil {
		t.Error(err)
	}
}

// A call whose patience ends before its turn comes is refused as overloaded.
func TestACallThatGetsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(fair.NewProcessors(1), "")
		holder := fair.NewPlace(a.Account)
		mustWait(t, holder)
		i := Instance{account: a, turn: fair.NewPlace(a.Account)}
		i.meter = meter{ctx: t.Context(), budget: budget{time: time.Second}}
		if _, trap := i.takeTurn(fair.Now()); trap == nil || trap.kind != service.KindOverloaded ||
			i.meter.waited != patience*time.Second {
			t.Errorf("%v after %v", trap, i.meter.waited)
		}
		holder.Release()
	})
}

// An instance that is reset during a turn, and waits for the image that another one makes, gives up its turn,
// which the other one needs. It has one again when it goes on.
func TestWhoWaitsForAnImageHoldsNoTurn(t *testing.T) {
	r := newRuntime(t, Options{CacheDir: codeDir()})
	r.processors = fair.NewProcessors(1)
	p, err := r.Compile(t.Context(), "", testguest.Counter("c"), quick, service.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	i, err := p.Instantiate(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, patient := range []bool{true, false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		p.mu.Lock()
		if p.image != nil {
			p.image.close()
			p.image = nil // as if it could not be made
		}
		p.mu.Unlock()
		p.account.Burn(1, fair.Now()+int64(time.Hour), true) // recent use is high
		if err := i.takeTurnToReset(ctx); err != nil || !i.turn.Held() {
			t.Fatalf("no turn: %v", err)
		}
		i.end(ctx)
		p.making <- struct{}{} // another instance makes it, and needs a turn
		started := make(chan error, 1)
		go func() { started <- i.start(ctx) }()
		other := fair.NewPlace(p.account.Account)
		mustWait(t, other)
		if !patient {
			cancel()
			if err := <-started; service.KindOf(err) != service.KindCanceled {
				t.Errorf("whose caller has gone: %v", err)
			}
		}
		other.Release()
		<-p.making
		if patient {
			if err := <-started; err != nil || p.image == nil {
				t.Errorf("image %v, %v", p.image, err)
			}
			if !i.turn.Resume() && !i.turn.Held() {
				t.Error("it goes on without a turn")
			}
			if _, err := i.Handle(t.Context(), add); err != nil {
				t.Error(err)
			}
		}
		cancel()
	}
}

package sandbox

import (
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
)

// working is what [Instance.Work] needs, made once so that short work allocates nothing.
type working struct {
	turn *fair.HostTurn  // of the instance's place
	ctx  context.Context // of the present work
	rest func() error
}

// Work does something that the host has to do for the service before or after a call, such as
// looking at a command's data. It is charged to the service, and takes turns as the guest
// does: do calls rest after each tenth of a millisecond or so, and stops with its error, which
// comes when ctx ends. As with calls, what ends before the first rest waits for nobody; nor is it
// measured, as that would take longer than most of it: do returns how long it took up to there, and
// calls rest after some microseconds. The guest is not entered, so the instance may be broken.
func (i *Instance) Work(ctx context.Context, do func(rest func() error) (took time.Duration, err error)) error {
	w := &i.working
	if w.rest == nil {
		w.turn = fair.NewHostTurn(i.turn)
		w.rest = func() error { return w.turn.Begin(w.ctx) }
	}
	w.ctx = ctx
	took, err := do(w.rest)
	w.ctx = nil
	i.unbilled += int64(took) // to be told with what follows
	i.turn.Spend(int64(took))
	if work, ok := w.turn.Stop(); ok { // it has rested, and not waited for a turn in vain
		i.hostWork(work)
	}
	if i.turn.Held() {
		i.turn.Pause(fair.Now())
	}
	return err
}

package sandbox

import (
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
)

// working is the state of [Instance.Work], kept so that short work allocates nothing.
type working struct {
	turn *fair.HostTurn  // of the instance's place
	ctx  context.Context // of the present work
	rest func() error
}

// Work runs work that the host does for the service before or after a call, such as checking a command's
// data. It is charged to the service and takes turns as the guest does. do calls rest about every tenth of a
// millisecond, and stops with rest's error when ctx has ended. Work that ends before the first rest waits for
// no turn. Nor is that part measured, as measuring would take longer than most of it: do returns how long it
// took until the first rest, which should come after some microseconds. The guest is not entered, so the
// instance may be broken.
func (i *Instance) Work(ctx context.Context, do func(rest func() error) (took time.Duration, err error)) error {
	w := &i.working
	if w.rest == nil {
		w.turn = fair.NewHostTurn(i.turn)
		w.rest = func() error { return w.turn.Begin(w.ctx) }
	}
	w.ctx = ctx
	took, err := do(w.rest)
	w.ctx = nil
	i.unbilled += int64(took) // charged with what follows
	i.turn.Spend(int64(took))
	if work, ok := w.turn.Stop(); ok { // do called rest and got a turn
		i.hostWork(work)
	}
	if i.turn.Held() {
		i.turn.Pause(fair.Now())
	}
	return err
}

package sandbox

import "context"

// working is what [Instance.Work] needs, made once so that short work allocates nothing.
type working struct {
	turn HostTurn        // that of the instance
	ctx  context.Context // of the present work
	rest func() error
}

// Work does something that the host has to do for the service before or after a call, such as
// looking at a command's data. It is charged to the service, and takes turns as the guest
// does: do calls rest after each tenth of a millisecond or so, and stops with its error, which
// comes when ctx ends. As with calls, what ends before the first rest waits for nobody. The
// guest is not entered, so the instance may be broken.
func (i *Instance) Work(ctx context.Context, do func(rest func() error) error) error {
	w := &i.working
	if w.rest == nil {
		w.turn.turn = i.turn
		w.rest = func() error { return w.turn.Begin(w.ctx) }
	}
	w.ctx = ctx
	now := clock()
	if i.account.heavy(now) {
		i.turn.resume()
	}
	w.turn.begin(now)
	err := do(w.rest)
	w.ctx = nil
	if w.turn.busy { // else it waited for a turn in vain
		w.turn.busy = false
		i.hostWork(w.turn.work)
	}
	i.turn.pause(clock())
	return err
}

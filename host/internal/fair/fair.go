// Package fair shares a few places among many who want to work for long: in turns, which are short,
// and of which there is a fixed number at a time. It knows nothing of the work.
//
// [Turns] share time by the clock, such as that for reading logs. They go round: first among
// accounts, then among the members of an account, then among what a member does at the same time.
// Somebody who asks for little waits for little, however much others ask for. A turn is given up only
// at a point that its holder chooses ([Turn.Begin], [Turn.End]), so what the holder does between two
// such points should be small. While the holder waits for somebody else ([Turn.Rest]), a turn that
// has lasted long enough is taken away if others want it.
//
// [Processors] share processor time among services that compute. Turns go to the service that has
// used the least of late, and a service that uses little takes none. [Lap] measures that time.
package fair

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// FullError is the error of who would have to wait when as many wait as may.
type FullError struct{ Waiting, Most int }

// Error implements error.
func (e *FullError) Error() string { return "too many are waiting for their turn" }

// Options configure [Turns]. A zero field means its default.
type Options struct {
	// Slots is how many turns there are at a time. Default 1.
	Slots int
	// Length is how long a turn lasts while others wait. Default 1 ms.
	Length time.Duration
	// Waiting bounds how many wait for a turn. Default 131,072.
	Waiting int
	// Charge, if not nil, is told how long somebody of an account has worked, now and then.
	// It is called on the goroutine that worked, and must not block.
	Charge func(account string, worked time.Duration)
}

func (o Options) withDefaults() Options {
	o.Slots = max(o.Slots, 1)
	if o.Length <= 0 {
		o.Length = time.Millisecond
	}
	if o.Waiting <= 0 {
		o.Waiting = 1 << 17
	}
	return o
}

// Stats are what [Turns] are doing, and have done.
type Stats struct {
	Slots   int
	Working int           // turns that are held now
	Waiting int           // for one
	Begun   uint64        // turns
	Worked  time.Duration // in them
	Waited  time.Duration // for them
	Refused uint64        // with FullError
}

// Turns hand out turns. They may be used concurrently, and hold nothing that has to be
// closed.
type Turns struct {
	opt     Options
	waiting atomic.Int64 // how many are in the queue; changed under mu

	mu      sync.Mutex // guards all below, and the fields of turns that say so
	holders []*Turn    // at most Slots
	queue   round      // of accounts, of members, of turns
	timer   *time.Timer
	armed   bool
	begun   uint64
	worked  time.Duration
	waited  time.Duration
	refused uint64
}

// New makes turns of which nobody holds one.
func New(o Options) *Turns { return &Turns{opt: o.withDefaults()} }

// Stats says what goes on.
func (t *Turns) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Stats{Slots: t.opt.Slots, Waiting: int(t.waiting.Load()), Begun: t.begun, Worked: t.worked, Waited: t.waited,
		Refused: t.refused}
	now := time.Now()
	for _, h := range t.holders {
		if h.state == working || now.Sub(h.began) < t.opt.Length {
			s.Working++
		}
	}
	return s
}

// The states of a turn.
const (
	away    = iota // holds nothing
	queued         // waits
	working        // holds a turn
	resting        // holds one that may be taken away when it has lasted long enough
)

// Turn is the place of one who works now and then. One goroutine at a time uses it. It
// holds nothing while its owner neither works nor rests, so it may be dropped then; one
// that is dropped earlier loses what it holds as soon as somebody else wants that.
type Turn struct {
	turns           *Turns
	account, member string
	granted         chan struct{} // capacity 1

	began time.Time // of the turn; written under mu, and read by its owner while it works
	since time.Time // since when it works; its owner's own

	state int // guarded by mu
	place *list.Element
}

// Turn makes a place for somebody who belongs to a member of an account.
func (t *Turns) Turn(account, member string) *Turn {
	return &Turn{turns: t, account: account, member: member, granted: make(chan struct{}, 1)}
}

// Begin waits for a turn; who rests goes on with what is left of the last one. Who works
// already gives the turn up and waits for another if it has lasted long enough and others
// wait. It fails with the cause of ctx's end, or with [FullError], and holds nothing then.
func (p *Turn) Begin(ctx context.Context) error {
	t := p.turns
	now := time.Now()
	t.mu.Lock()
	worked := p.worked(now)
	switch p.state {
	case working, resting:
		if t.waiting.Load() == 0 || now.Sub(p.began) < t.opt.Length {
			if now.Sub(p.began) >= t.opt.Length {
				t.give(p, now) // another one
			}
			p.state = working
			p.since = now
			t.mu.Unlock()
			t.charge(p, worked)
			return nil
		}
		t.leave(p)
	}
	var err error
	switch {
	case t.waiting.Load() == 0 && t.room(now):
		t.holders = append(t.holders, p)
		t.give(p, now)
	case t.waiting.Load() >= int64(t.opt.Waiting):
		err = &FullError{Waiting: int(t.waiting.Load()), Most: t.opt.Waiting}
		t.refused++
	default:
		p.state = queued
		t.waiting.Add(1)
		t.queue.push(p)
	}
	waits := p.state == queued // it may be granted at once
	t.grant(now)
	t.watch(now)
	t.mu.Unlock()
	t.charge(p, worked)
	if waits {
		err = p.wait(ctx, now)
	}
	p.since = time.Now()
	return err
}

// wait waits in the queue.
func (p *Turn) wait(ctx context.Context, since time.Time) error {
	t := p.turns
	var err error
	select {
	case <-p.granted:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waited += now.Sub(since)
	if err == nil {
		return nil
	}
	if p.state == queued {
		t.queue.remove(p)
		t.waiting.Add(-1)
		p.state = away
	} else { // it was granted meanwhile
		<-p.granted
		t.leave(p)
		t.grant(now)
		t.watch(now)
	}
	return err
}

// Spent reports whether the turn has lasted long enough and others wait, so that its
// holder should come to a point where it calls Begin, Rest or End.
func (p *Turn) Spent() bool {
	return p.turns.waiting.Load() > 0 && time.Since(p.began) >= p.turns.opt.Length
}

// Rest keeps the turn, but lets others take it away when it has lasted long enough. It is
// for the time in which its holder waits for somebody else, a client that reads for
// instance.
func (p *Turn) Rest() {
	p.stop(func(t *Turns, now time.Time) {
		if p.state == working {
			p.state = resting
			t.grant(now)
			t.watch(now)
		}
	})
}

// End gives the turn up. Without one it does nothing.
func (p *Turn) End() {
	p.stop(func(t *Turns, now time.Time) {
		if p.state == working || p.state == resting {
			t.leave(p)
			t.grant(now)
			t.watch(now)
		}
	})
}

// stop ends a piece of work.
func (p *Turn) stop(then func(t *Turns, now time.Time)) {
	t, now := p.turns, time.Now()
	t.mu.Lock()
	worked := p.worked(now)
	then(t, now)
	t.mu.Unlock()
	t.charge(p, worked)
}

// worked is how long it has worked since that was asked, if it works. The caller holds
// mu, as for all below but charge.
func (p *Turn) worked(now time.Time) time.Duration {
	if p.state != working {
		return 0
	}
	d := now.Sub(p.since)
	p.turns.worked += d
	return d
}

func (t *Turns) charge(p *Turn, worked time.Duration) {
	if worked > 0 && t.opt.Charge != nil {
		t.opt.Charge(p.account, worked)
	}
}

// give begins a turn.
func (t *Turns) give(p *Turn, now time.Time) {
	p.state, p.began = working, now
	t.begun++
}

// leave ends one.
func (t *Turns) leave(p *Turn) {
	p.state = away
	if k := slices.Index(t.holders, p); k >= 0 {
		t.holders = slices.Delete(t.holders, k, k+1)
	}
}

// room reports whether there is a slot, or makes one of a turn that rests and has lasted
// long enough.
func (t *Turns) room(now time.Time) bool {
	if len(t.holders) >= t.opt.Slots {
		t.holders = slices.DeleteFunc(t.holders, func(h *Turn) bool {
			over := h.state == resting && now.Sub(h.began) >= t.opt.Length
			if over {
				h.state = away
			}
			return over
		})
	}
	return len(t.holders) < t.opt.Slots
}

// grant gives free slots to who waits.
func (t *Turns) grant(now time.Time) {
	for t.waiting.Load() > 0 && t.room(now) {
		p := t.queue.pop()
		t.waiting.Add(-1)
		t.holders = append(t.holders, p)
		t.give(p, now)
		p.granted <- struct{}{}
	}
}

// watch has the timer look after turns that rest while others wait.
func (t *Turns) watch(now time.Time) {
	if t.armed || t.waiting.Load() == 0 {
		return
	}
	for _, h := range t.holders {
		if h.state != resting {
			continue
		}
		left := t.opt.Length - now.Sub(h.began)
		t.armed = true
		if t.timer == nil {
			t.timer = time.AfterFunc(left, t.sweep)
		} else {
			t.timer.Reset(left)
		}
		return
	}
}

// sweep runs when the timer does.
func (t *Turns) sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = false
	now := time.Now()
	t.grant(now)
	t.watch(now)
}

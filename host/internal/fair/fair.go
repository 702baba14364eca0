// Package fair shares a few places among many who have long work. They take turns, which are short, and of
// which there is a fixed number at a time. The package does not know what the work is.
//
// [Turns] share time by the clock, for example for reading logs. They go round: first among accounts, then
// among the members of an account, then among what a member does concurrently. A holder with little work
// waits for little, however much others want. A turn is given up only where its holder chooses ([Turn.Begin],
// [Turn.End]), so there should be little work between two such points. While the holder waits for someone
// else ([Turn.Rest]), a turn that has lasted long enough is taken away if others want it.
//
// [Processors] share processor time among services that compute. Turns go to the service that has used the
// least recently, and a service that uses little needs none. [Lap] measures that time.
package fair

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// FullError says that the maximum number of holders already waits.
type FullError struct{ Waiting, Max int }

// Error implements error.
func (e *FullError) Error() string { return "too many are waiting for their turn" }

// Options configure [Turns]. A zero field means its default.
type Options struct {
	// Slots is the number of concurrent turns. Default 1.
	Slots int
	// Length is how long a turn lasts while others wait. Default 1 ms.
	Length time.Duration
	// Waiting is the maximum number that may wait for a turn. Default 131,072.
	Waiting int
	// Charge, if not nil, is called from time to time with the time that an account has worked. It is called
	// on the goroutine that worked, and must not block.
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

// Stats are the present state of [Turns], and their counters.
type Stats struct {
	Slots   int
	Working int           // turns that are held at present
	Waiting int           // for one
	Begun   uint64        // turns that have begun
	Worked  time.Duration // total time of turns
	Waited  time.Duration // total time of waits
	Refused uint64        // number of FullErrors
}

// Turns hand out turns. They are safe for concurrent use, and need not be closed.
type Turns struct {
	opt     Options
	waiting atomic.Int64 // length of the queue; changed under mu

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

// New makes turns without holders.
func New(o Options) *Turns { return &Turns{opt: o.withDefaults()} }

// Stats returns the present state and the counters.
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
	resting        // holds one, which others may take when it has lasted long enough
)

// Turn is the place of someone who works from time to time. Only one goroutine at a time may use it. It holds
// nothing while its owner neither works nor rests, and may be dropped then. If it is dropped earlier, others
// take what it holds when they need it.
type Turn struct {
	turns           *Turns
	account, member string
	granted         chan struct{} // capacity 1

	began time.Time // of the turn; written under mu, and read by its owner while it works
	since time.Time // when the work began; only its owner uses it

	state int // guarded by mu
	place *list.Element
}

// Turn makes a place for a member of an account.
func (t *Turns) Turn(account, member string) *Turn {
	return &Turn{turns: t, account: account, member: member, granted: make(chan struct{}, 1)}
}

// Begin waits for a turn. If the turn rests, Begin continues it. If it works, has lasted long enough and
// others wait, Begin gives it up and waits for another. Begin fails with the cause of ctx's end, or with
// [FullError]; then it holds nothing.
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
		err = &FullError{Waiting: int(t.waiting.Load()), Max: t.opt.Waiting}
		t.refused++
	default:
		p.state = queued
		t.waiting.Add(1)
		t.queue.push(p)
	}
	waits := p.state == queued // even if grant then grants it immediately
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

// Spent reports whether the turn has lasted long enough and others wait. Then its holder should soon call
// Begin, Rest or End.
func (p *Turn) Spent() bool {
	return p.turns.waiting.Load() > 0 && time.Since(p.began) >= p.turns.opt.Length
}

// Rest keeps the turn, but lets others take it when it has lasted long enough. It is for the time while its
// holder waits for someone else, such as a client that reads.
func (p *Turn) Rest() {
	p.stop(func(t *Turns, now time.Time) {
		if p.state == working {
			p.state = resting
			t.grant(now)
			t.watch(now)
		}
	})
}

// End gives the turn up, if there is one.
func (p *Turn) End() {
	p.stop(func(t *Turns, now time.Time) {
		if p.state == working || p.state == resting {
			t.leave(p)
			t.grant(now)
			t.watch(now)
		}
	})
}

// stop ends a stretch of work.
func (p *Turn) stop(then func(t *Turns, now time.Time)) {
	t, now := p.turns, time.Now()
	t.mu.Lock()
	worked := p.worked(now)
	then(t, now)
	t.mu.Unlock()
	t.charge(p, worked)
}

// worked is how long it has worked since the last call, if it works. The caller holds mu, here and below,
// except for charge.
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

// leave ends a turn.
func (t *Turns) leave(p *Turn) {
	p.state = away
	if k := slices.Index(t.holders, p); k >= 0 {
		t.holders = slices.Delete(t.holders, k, k+1)
	}
}

// room reports whether there is a free slot. It may take one from a turn that rests and has lasted long
// enough.
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

// grant gives free slots to those that wait.
func (t *Turns) grant(now time.Time) {
	for t.waiting.Load() > 0 && t.room(now) {
		p := t.queue.pop()
		t.waiting.Add(-1)
		t.holders = append(t.holders, p)
		t.give(p, now)
		p.granted <- struct{}{}
	}
}

// watch sets the timer for turns that rest while others wait.
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

// sweep is called by the timer.
func (t *Turns) sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = false
	now := time.Now()
	t.grant(now)
	t.watch(now)
}

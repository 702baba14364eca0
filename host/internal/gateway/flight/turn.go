package flight

import (
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

const (
	// Paced is the size of a body or message, in bytes, above which it comes in at the rate that all connections
	// share.
	Paced = 16 << 10
	// BodyBurst is how many bytes of bodies may come in at once. Others would feel a burst of megabytes.
	BodyBurst = 256 << 10
	// large is the size of a body, message or reply, in bytes, from which it is read, checked and written in turns
	// with others: that takes milliseconds, for which small commands would wait.
	large = 64 << 10
)

const _ = uint(BodyBurst - PieceBytes) // a larger piece would never be let in

// Traffic is what large bodies, messages and answers of all connections wait for. It is safe for concurrent use.
type Traffic struct {
	// Turns gives turns to large ones.
	Turns Turns
	// Rate bounds the bytes that come in; *rate.Limiter, with a burst of BodyBurst, is one.
	Rate Rate
	// BodyTime is how long a body or message may keep the host waiting.
	BodyTime time.Duration
}

// Turns makes places for work of milliseconds that is done for a client of a service or, without a name, for a
// client.
type Turns interface {
	Turn(ctx context.Context, name service.Name) service.Turn
}

// Rate lets bytes in.
type Rate interface {
	// WaitN returns when n more bytes may come in, or with an error when ctx ends.
	WaitN(ctx context.Context, n int) error
}

// Pacer has a large body read, or a large answer written, in turns. The zero value has no turns. One goroutine uses
// it.
type Pacer struct {
	turn service.Turn // nil: it is not waited for one
	ctx  context.Context
}

// Pace begins a turn for so many bytes of a service, if these are many; the name is empty if they are of no
// service. End it with [Pacer.End]. If too many wait, the work is done without a turn: an answer may be the only
// word that a client gets of what was done.
func (t *Traffic) Pace(ctx context.Context, name service.Name, size int) (p Pacer) {
	if size < large {
		return p
	}
	p = Pacer{t.Turns.Turn(ctx, name), ctx}
	p.Begin()
	return p
}

// Begin returns when others have had their turn.
func (p *Pacer) Begin() {
	if p.turn != nil && p.turn.Begin(p.ctx) != nil {
		p.turn = nil
	}
}

// Rest lets others have their turn until the next Begin, while the client is waited for.
func (p *Pacer) Rest() {
	if p.turn != nil {
		p.turn.Rest()
	}
}

// Pass waits for a turn before something is written, and lets others have theirs while the client takes it. The wait
// is not held against the client.
func (p *Pacer) Pass(client *Allowance) {
	if p.turn == nil {
		return
	}
	begin := time.Now()
	p.Begin()
	p.Rest()
	client.extend(time.Since(begin))
}

// End gives the place back.
func (p *Pacer) End() {
	if p.turn != nil {
		p.turn.End()
	}
	*p = Pacer{}
}

package flight

import (
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

const (
	// Paced is the size of a body or message, in bytes, above which the rate limit of all connections
	// applies.
	Paced = 16 << 10
	// BodyBurst is how many bytes of bodies may come in at once. A burst of megabytes would delay others.
	BodyBurst = 256 << 10
	// large is the size of a body, message or reply, in bytes, from which it is read, checked and written in
	// turns with others: this takes milliseconds, for which small commands would wait.
	large = 64 << 10
)

const _ = uint(BodyBurst - PieceBytes) // a larger piece would never be let in

// Traffic bounds the large bodies, messages and answers of all connections. It is safe for concurrent use.
type Traffic struct {
	// Turns gives turns to large ones.
	Turns Turns
	// Rate limits incoming bytes; *rate.Limiter, with a burst of BodyBurst, implements it.
	Rate Rate
	// BodyTime is how long the host may wait for a body or message.
	BodyTime time.Duration
}

// Turns makes places for milliseconds of work for a client of a service or, without a name, for a client.
type Turns interface {
	Turn(ctx context.Context, name service.Name) service.Turn
}

// Rate lets bytes in.
type Rate interface {
	// WaitN returns when n more bytes may come in, or with an error when ctx ends.
	WaitN(ctx context.Context, n int) error
}

// Pacer takes turns while a large body is read or a large answer written. The zero value has no turns. Only
// one goroutine uses it.
type Pacer struct {
	turn service.Turn // nil: no turns are taken
	ctx  context.Context
}

// Pace begins a turn for a number of bytes of a service, if that number is large; the name is empty if they
// belong to no service. End it with [Pacer.End]. If too many wait, the work is done without a turn: the
// answer may be all that a client learns of what was done.
func (t *Traffic) Pace(ctx context.Context, name service.Name, size int) (p Pacer) {
	if size < large {
		return p
	}
	p = Pacer{t.Turns.Turn(ctx, name), ctx}
	p.Begin()
	return p
}

// Begin returns when others have had their turns.
func (p *Pacer) Begin() {
	if p.turn != nil && p.turn.Begin(p.ctx) != nil {
		p.turn = nil
	}
}

// Rest lets others have their turns until the next Begin, while the host waits for the client.
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

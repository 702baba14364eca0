package streams

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// subscription is a service's events on a stream. Its goroutine waits for credit, then for events, then for
// the sender to take them.
type subscription struct {
	t      *stream
	id     string
	from   string // where to begin
	sel    View
	head   []byte // what comes before each event in its message
	feed   *feed
	cancel context.CancelFunc
	ended  func() // gives back what it holds of the connection's flight

	sent chan struct{} // has one when the sender has written a batch of events

	mu      sync.Mutex // guards credits
	credits int64
	granted chan struct{} // has one when credits were granted since the last check
}

// batch is what a subscription gives to the sender: events, or another message, for example that it has begun
// or ended.
type batch struct {
	sub     *subscription
	message []byte // a complete message, or nil
	events  []Event
	held    holding // what the events take
}

// send encodes and queues a batch. The events are shared with other readers, so small ones are copied once,
// after the head.
func (b *batch) send(k *socket, buf []byte) ([]byte, error) {
	if b.message != nil {
		return buf, k.send(b.message)
	}
	defer b.held.drop(k.flight)
	for i := range b.events {
		text := b.events[i].Text.Within(append(buf[:0], b.sub.head...), closingBrace)
		if err := k.sendPieces(&text); err != nil {
			return buf, err
		}
		if whole, ok := text.Short(); ok {
			buf = kept(whole)
		}
	}
	b.sub.sent <- struct{}{} // there is room, as it waits for this one
	return buf, nil
}

var closingBrace = []byte("}")

func (t *stream) subscribe(m *api.ClientMessage) error {
	name, err := service.ParseName(string(m.Service))
	if err != nil {
		return err
	}
	sel := View{Selection: service.Selection{Service: name}}
	if sel.Types, sel.Keys, err = Filter(m.Types, m.Keys); err != nil {
		return err
	}
	t.mu.Lock()
	_, taken := t.subs[m.ID]
	count := len(t.subs)
	t.mu.Unlock()
	switch {
	case taken:
		return service.Errorf(service.KindInvalid, "the id %q is that of another subscription", m.ID)
	case count >= t.s.options.Subscriptions:
		return &service.Error{Kind: service.KindOverloaded, Message: "this connection has as many subscriptions as " +
			"it may", RetryAfter: flight.RetrySoon,
			Resource: "subscriptions_of_connection", Used: int64(count), Limit: int64(t.s.options.Subscriptions)}
	}
	if _, err := t.s.host.Head(name); err != nil { // there is no such service
		return err
	}
	sub := &subscription{t: t, id: m.ID, from: m.From, sel: sel, head: api.AppendEventHead(nil, m.ID),
		sent: make(chan struct{}, 1), granted: make(chan struct{}, 1)}
	if err := sub.grant(m.Credits); err != nil {
		return err
	}
	// the id is in its head and its messages
	if sub.ended, err = t.k.flight.Subscribe(flight.ReaderRoom(&sel.Selection) + 4*len(m.ID)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.ctx)
	sub.cancel = cancel
	t.mu.Lock()
	t.subs[m.ID] = sub
	t.mu.Unlock()
	t.waiting.Go(func() { sub.run(ctx) })
	return nil
}

func (t *stream) find(id string) (*subscription, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sub, ok := t.subs[id]
	if !ok {
		return nil, service.Errorf(service.KindNotFound, "there is no subscription %q", id)
	}
	return sub, nil
}

func (t *stream) credit(m *api.ClientMessage) error {
	sub, err := t.find(m.ID)
	if err != nil {
		return err
	}
	return sub.grant(m.Credits)
}

// unsubscribe asks the subscription to end; its last message is the answer.
func (t *stream) unsubscribe(m *api.ClientMessage) error {
	sub, err := t.find(m.ID)
	if err != nil {
		return err
	}
	sub.cancel()
	return nil
}

// grant adds credits.
func (s *subscription) grant(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if maxCredits := s.t.s.options.Credits; n > uint64(maxCredits) || s.credits > maxCredits-int64(n) {
		return service.Errorf(service.KindInvalid, "a subscription may hold %d credits; this one has %d and would "+
			"get %d", maxCredits, s.credits, n)
	}
	s.credits += int64(n)
	select {
	case s.granted <- struct{}{}:
	default:
	}
	return nil
}

// held waits until there are credits, and returns them.
func (s *subscription) held(ctx context.Context) (int64, error) {
	for {
		s.mu.Lock()
		n := s.credits
		s.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-s.granted:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// begin finds the place where the subscription begins, and opens its feed. It may wait for a turn to read the
// log, so the receiving goroutine does not call it.
func (s *subscription) begin(ctx context.Context) (first []byte, err error) {
	from, err := service.ParseFrom(s.from)
	if err != nil {
		return nil, err
	}
	reading, done := s.t.s.wait(ctx, time.Time{})
	defer done()
	at, err := s.t.s.host.Place(reading, s.sel.Service, from)
	if err != nil {
		return nil, err
	}
	if s.feed, err = s.t.s.newFeed(ctx, s.t.k.flight, s.sel, at.Position); err != nil {
		return nil, err
	}
	return api.AppendSubscribed(nil, s.id, at.String()), nil
}

// run is the subscription's goroutine.
func (s *subscription) run(ctx context.Context) {
	defer s.ended()
	defer s.cancel()
	last := api.OpError // for one that never begins
	first, err := s.begin(ctx)
	if err == nil || ctx.Err() != nil {
		last = api.OpUnsubscribed
	}
	if err == nil {
		err = s.give(ctx, batch{sub: s, message: first})
	}
	for err == nil {
		var credits int64
		if credits, err = s.held(ctx); err != nil {
			break
		}
		var events []Event
		var held holding
		if events, held, err = s.feed.nextOrPing(ctx, int(min(credits, batchEvents))); err != nil {
			break
		}
		if len(events) == 0 {
			if c, ok := s.feed.checkpoint(ctx); ok {
				err = s.give(ctx, batch{sub: s, message: api.AppendCheckpoint(nil, s.id, c.String())})
			}
			continue
		}
		s.mu.Lock()
		s.credits -= int64(len(events))
		s.mu.Unlock()
		// The feed must not be ahead of the sender: a subscriber that is behind keeps its turn until it asks
		// for more, so only as many write as have a turn.
		if err = s.give(ctx, batch{sub: s, events: events, held: held}); err != nil {
			held.drop(s.t.k.flight)
		} else {
			err = s.written(ctx)
		}
	}
	// The id is free before the client can know that.
	s.t.mu.Lock()
	delete(s.t.subs, s.id)
	s.t.mu.Unlock()
	var problem *api.Problem
	if !errors.Is(err, context.Canceled) {
		p := s.t.answer.Problem(err)
		problem = &p
	}
	// Whatever this returns, the connection ends or the message was given.
	_ = s.give(s.t.ctx, batch{sub: s, message: api.AppendProblem(nil, last, s.id, problem)})
}

// written waits until the sender has written what it was given.
func (s *subscription) written(ctx context.Context) error {
	select {
	case <-s.sent:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// give waits until the sender takes a batch.
func (s *subscription) give(ctx context.Context, b batch) error {
	select {
	case s.t.batches <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

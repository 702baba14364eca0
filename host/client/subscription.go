package client

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Subscription is a stream of events on a [Stream]. One goroutine at a time may
// call Next and Cursor.
type Subscription struct {
	stream *Stream
	id     string
	cursor string // as far as Next has come
	window int

	events chan json.RawMessage // as large as the window, so that the reading goroutine never waits
	ended  chan struct{}        // closed after problem was set
	err    error                // why the host ended it; written before ended is closed
	taken  int                  // events since credit was last granted; of Next alone

	received uint64 // events so far; of the reading goroutine alone
	given    uint64 // events so far; of Next alone

	mu    sync.Mutex // guards what follows
	mark  string     // the last checkpoint, if no event that came after it was given; else empty
	after uint64     // how many events came before it
}

// Subscribe starts a subscription that has at most window events on the way at a
// time; it grants the host credit again as Next takes them. s.From works as for Follow.
func (s *Stream) Subscribe(ctx context.Context, sel service.Selection, window int) (*Subscription, error) {
	if window < 1 || int64(window) > s.limits.Credits {
		return nil, service.Errorf(service.KindInvalid, "a window of %d events; the host allows 1 to %d", window,
			s.limits.Credits)
	}
	sub := &Subscription{stream: s, window: window, events: make(chan json.RawMessage, window),
		ended: make(chan struct{})}
	got := make(chan error, 1)
	err := s.ask(ctx, func(id string) []byte {
		sub.id = id
		m := api.ClientMessage{Op: api.OpSubscribe, ID: id, Service: sel.Service, From: sel.From.String(),
			Credits: uint64(window)}
		for _, t := range sel.Types {
			m.Types = append(m.Types, string(t))
		}
		for _, k := range sel.Keys {
			m.Keys = append(m.Keys, string(k))
		}
		s.mu.Lock()
		s.subs[id] = sub // before the first event can come
		s.mu.Unlock()
		return encode(&m)
	}, func(m *api.ServerMessage, err error) {
		if err == nil {
			sub.cursor = m.Cursor
		}
		got <- err
	})
	if err == nil {
		select {
		case err = <-got:
			if err == nil {
				return sub, nil
			}
			err = s.lost(err, false)
		case <-ctx.Done():
			err = service.Errorf(service.KindOf(ctx.Err()), "not waited for: %w", ctx.Err())
			// or the connection has ended, and so has it
			_ = s.write(context.Background(), encode(&api.ClientMessage{Op: api.OpUnsubscribe, ID: sub.id}))
		}
	}
	s.mu.Lock()
	delete(s.subs, sub.id)
	s.mu.Unlock()
	return nil, err
}

// Cursor is where the subscription has come to: a new one from there gives the events that Next has not given. It
// goes on also where the host passes by events that are not selected, and is where the subscription began before the
// first event.
func (s *Subscription) Cursor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mark != "" && s.given == s.after {
		return s.mark
	}
	return s.cursor
}

// take is called on the reading goroutine with each message of the subscription.
func (s *Subscription) take(m *api.ServerMessage) error {
	if m.Op == api.OpUnsubscribed {
		s.err = errEnded
		if m.Problem != nil {
			s.err = m.Problem.Err()
		}
		close(s.ended)
		return nil
	}
	if m.Op == api.OpCheckpoint {
		s.mu.Lock()
		if s.mark != "" && s.given == s.after {
			s.cursor = s.mark // Next may be a while on its way to the new one
		}
		s.mark, s.after = m.Cursor, s.received
		s.mu.Unlock()
		return nil
	}
	select {
	case s.events <- m.Event:
		s.received++
		return nil
	default:
		return service.Errorf(service.KindInternal, "the host sent more events than it was granted")
	}
}

var errEnded = service.Errorf(service.KindCanceled, "the subscription has ended")

// Next waits for the next event. After the last one it fails with why the
// subscription or its connection ended.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	var raw json.RawMessage
	select {
	case raw = <-s.events:
	default:
		select {
		case raw = <-s.events:
		case <-s.ended:
			return s.last(s.err)
		case <-s.stream.closing:
			return s.last(s.stream.lost(s.stream.Err(), false))
		case <-ctx.Done():
			return Event{}, service.Errorf(service.KindOf(ctx.Err()), "no event in time: %w", ctx.Err())
		}
	}
	return s.deliver(raw)
}

// last gives what came before the end, and then the end.
func (s *Subscription) last(err error) (Event, error) {
	select {
	case raw := <-s.events:
		return s.deliver(raw)
	default:
		return Event{}, err
	}
}

func (s *Subscription) deliver(raw json.RawMessage) (Event, error) {
	if s.taken++; s.taken >= (s.window+1)/2 {
		m := api.ClientMessage{Op: api.OpCredit, ID: s.id, Credits: uint64(s.taken)}
		s.taken = 0
		_ = s.stream.write(context.Background(), encode(&m)) // or the connection has ended, which Next will find
	}
	var e Event
	if err := e.UnmarshalJSON(raw); err != nil {
		return Event{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = e.ID
	if s.given++; s.given > s.after {
		s.mark = "" // that was before this event
	}
	return e, nil
}

// Close ends the subscription; events on their way are dropped.
func (s *Subscription) Close(ctx context.Context) error {
	err := s.stream.write(ctx, encode(&api.ClientMessage{Op: api.OpUnsubscribe, ID: s.id}))
	if err != nil {
		return err
	}
	for {
		select {
		case <-s.events:
		case <-s.ended:
			for len(s.events) > 0 { // no more can come
				<-s.events
			}
			if errors.Is(s.err, errEnded) {
				return nil
			}
			return s.err
		case <-s.stream.closing:
			return nil
		case <-ctx.Done():
			return service.Errorf(service.KindOf(ctx.Err()), "not waited for: %w", ctx.Err())
		}
	}
}

// encode writes a message; no value of its type fails to encode.
func encode(m *api.ClientMessage) []byte {
	text, _ := json.Marshal(m)
	return text
}

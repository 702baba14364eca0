package gateway

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// counted gives one event each time, and counts.
type counted struct{ asked int }

func (c *counted) Next(context.Context, int) ([]Event, error) {
	c.asked++
	return []Event{{CloudEvent: []byte("{}")}}, nil
}

func (c *counted) Position() service.Position { return service.Position(c.asked) }

// A subscription asks for more when the sender is through with what there was, and not
// before: else it would take turns at the log that others could use, for a client that does
// not read.
func TestASubscriptionIsNotAheadOfItsSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		from := &counted{}
		s := &stream{s: &Server{options: Options{Credits: 100}}, ctx: ctx, batches: make(chan batch), subs: map[string]*subscription{}}
		sub := &subscription{t: s, id: "s", sub: from, cancel: cancel, sent: make(chan struct{}, 1), granted: make(chan struct{}, 1)}
		if err := sub.grant(100); err != nil {
			t.Fatal(err)
		}
		s.waiting.Go(func() { sub.run(ctx, []byte("subscribed")) })
		if b := <-s.batches; string(b.word) != "subscribed" {
			t.Errorf("the first word is %q", b.word)
		}
		for n := 1; n < 5; n++ {
			b := <-s.batches
			synctest.Wait()
			if len(b.events) != 1 || from.asked != n {
				t.Errorf("%d events; asked %d times for batch %d", len(b.events), from.asked, n)
			}
			sub.sent <- struct{}{} // as the sender does
		}
		// It ends while it waits for the sender, who still has room for that batch.
		b := <-s.batches
		cancel()
		s.waiting.Wait()
		b.sub.sent <- struct{}{}
	})
}

// late is a backend whose log takes long to read: each read goes on until the context
// ends, and comes on by one.
type late struct {
	Backend
	comesOn bool
}

func (l *late) Events(ctx context.Context, s Selection, _ int) ([]Event, service.Position, bool, error) {
	if s.After > 0 || !l.comesOn {
		<-ctx.Done()
		return nil, 0, false, ctx.Err()
	}
	return nil, s.After + 7, false, nil
}

// A page that is not full in time ends with the cursor that it has come to; without one
// it is too late.
func TestAPageEndsInTime(t *testing.T) {
	for _, comesOn := range []bool{true, false} {
		s := start(t, Options{RequestTime: 50 * time.Millisecond})
		s.server.backend = &late{s.fake, comesOn}
		r := s.do("GET", "/v1/services/bank/events?keys=nobody", "")
		if !comesOn {
			s.problem(r, http.StatusGatewayTimeout, "deadline_exceeded")
			continue
		}
		page := decode[api.Page](s, r)
		if r.status != http.StatusOK || len(page.Events) != 0 || !page.More || page.Next != s.fake.Cursor("bank", 7) {
			t.Errorf("%d: %+v", r.status, page)
		}
	}
}

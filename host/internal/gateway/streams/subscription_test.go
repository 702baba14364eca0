package streams

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// counted returns one event each time, and counts the calls.
type counted struct {
	Host
	asked int
}

func (c *counted) Place(_ context.Context, name service.Name, _ service.From) (service.Cursor, error) {
	return service.Cursor{}, nil
}

func (c *counted) Subscribe(context.Context, service.Selection) (service.Subscriber, error) {
	return c, nil
}

func (c *counted) Next(context.Context, int) ([]*service.Event, error) {
	c.asked++
	return []*service.Event{new(service.Event)}, nil
}

func (c *counted) Release() {}

func (c *counted) Position() service.Position { return service.Position(c.asked) }

// A subscription asks for more only when the sender has written everything. Otherwise it would take turns at
// the log, which others could use, for a client that does not read.
func TestASubscriptionIsNotAheadOfItsSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		from := &counted{}
		o := Options{Credits: 100, PingTime: time.Minute, RequestTime: time.Minute}
		root := budget.New(nil)
		f := flight.NewAccounts(flight.Options{Host: root, ConnectionBytes: 1 << 20}).Join("client", nil)
		s := &stream{s: &Streams{options: o, host: from}, ctx: ctx, k: &socket{flight: f},
			batches: make(chan batch), subs: map[string]*subscription{}}
		sub := &subscription{t: s, id: "s", sel: View{Selection: service.Selection{Service: "bank"}}, cancel: cancel,
			ended: func() {}, sent: make(chan struct{}, 1), granted: make(chan struct{}, 1)}
		if err := sub.grant(100); err != nil {
			t.Fatal(err)
		}
		begun := `{"op":"subscribed","id":"s","cursor":"` + service.Cursor{}.String() + `"}`
		s.waiting.Go(func() { sub.run(ctx) })
		if b := <-s.batches; string(b.message) != begun {
			t.Errorf("the first message is %q", b.message)
		}
		for n := 1; n < 5; n++ {
			b := <-s.batches
			synctest.Wait()
			if len(b.events) != 1 || from.asked != n {
				t.Errorf("%d events; asked %d times for batch %d", len(b.events), from.asked, n)
			}
			f.Give(b.held.own)
			sub.sent <- struct{}{} // as the sender does
		}
		// It ends while it waits for the sender, which still has room for that batch.
		b := <-s.batches
		cancel()
		s.waiting.Wait()
		f.Give(b.held.own)
		b.sub.sent <- struct{}{}
		if used := root.Used(budget.FlightBytes); used != 0 {
			t.Errorf("%d bytes are left in flight", used)
		}
	})
}

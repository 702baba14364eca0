package router

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeService handles commands and queries as configured.
type fakeService struct {
	submit   func(service.Command, func(service.Reply, error)) error
	query    func(service.Query, func(service.QueryReply, error)) error
	starting error
}

func (s *fakeService) Submit(c service.Command, done func(service.Reply, error)) error {
	return s.submit(c, done)
}

func (s *fakeService) Query(q service.Query, done func(service.QueryReply, error)) error {
	return s.query(q, done)
}

func (s *fakeService) Starting(service.Key) error { return s.starting }

// carrier counts the calls.
type carrier struct {
	unloaded, loaded int
	full             error
}

func (c *carrier) Unload() { c.unloaded++ }

func (c *carrier) Load(reply int) error {
	c.loaded += reply
	return c.full
}

func to(svc *fakeService) *Router {
	return New(func(name service.Name) (Service, error) {
		if name != "bank" {
			return nil, service.Errorf(service.KindNotFound, "there is no %s", name)
		}
		return svc, nil
	})
}

func wantKind(t *testing.T, what string, err error, kind service.Kind) {
	t.Helper()
	if err == nil || service.KindOf(err) != kind {
		t.Errorf("%s: got %v, want an error of kind %s", what, err, kind)
	}
}

// Whatever the outcome of a command, its carrier learns that its data is no longer held. Only if it was
// carried out does the carrier learn the size of the reply.
func TestCarriersAreUnloaded(t *testing.T) {
	carriedOut := func(_ service.Command, done func(service.Reply, error)) error {
		done(service.Reply{Data: []byte("12345"), Version: 3}, nil)
		return nil
	}
	failed := func(_ service.Command, done func(service.Reply, error)) error {
		done(service.Reply{}, service.Errorf(service.KindRejected, "no"))
		return nil
	}
	refused := func(service.Command, func(service.Reply, error)) error {
		return service.Errorf(service.KindOverloaded, "the mailbox is full")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx    context.Context
		to     service.Name
		submit func(service.Command, func(service.Reply, error)) error
		full   error
		kind   service.Kind // of the error, if there is one
		loaded int
	}{
		"carried out": {t.Context(), "bank", carriedOut, nil, 0, 5},
		"no room for its reply": {t.Context(), "bank", carriedOut,
			&service.Error{Kind: service.KindOverloaded, Resource: "bytes_in_flight", Limit: 4}, service.KindUnknown,
			5},
		"rejected":                {t.Context(), "bank", failed, nil, service.KindRejected, 0},
		"refused":                 {t.Context(), "bank", refused, nil, service.KindOverloaded, 0},
		"to nobody":               {t.Context(), "nobody", nil, nil, service.KindNotFound, 0},
		"of somebody who is gone": {gone, "bank", nil, nil, service.KindCanceled, 0},
	} {
		held := &carrier{full: c.full}
		r, err := to(&fakeService{submit: c.submit}).Send(c.ctx, service.Command{Service: c.to, ID: "1", Carrier: held})
		if c.kind == 0 {
			if err != nil || r.Version != 3 {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		} else {
			wantKind(t, name, err, c.kind)
		}
		if held.unloaded == 0 || held.loaded != c.loaded {
			t.Errorf("%s: unloaded %d times, %d bytes are loaded, want %d", name, held.unloaded, held.loaded, c.loaded)
		}
		var own *service.Error
		if c.full != nil && (!errors.As(err, &own) || own.Resource != "bytes_in_flight" || own.Limit != 4) {
			t.Errorf("%s: %+v does not say what there is no room of", name, own)
		}
	}
}

// A sender that gives up takes back a request that has not begun. For a command that has begun it learns that
// the outcome is unknown. A query has no outcome that could be in doubt.
func TestSendersThatGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begins bool
		var refusal error // by someone else, when the sender has given up
		enter := func(claim *service.Claim, done func(error)) {
			if begins && !claim.Begin() {
				t.Error("it could not begin")
			}
			if refusal != nil {
				claim.Refuse()
				time.AfterFunc(2*time.Minute, func() { done(refusal) })
			}
		}
		svc := &fakeService{
			submit: func(c service.Command, done func(service.Reply, error)) error {
				if c.Deadline.IsZero() || c.Gone == nil {
					t.Error("the service does not know when its sender gives up")
				}
				enter(c.Claim, func(err error) { done(service.Reply{}, err) })
				return nil
			},
			query: func(q service.Query, done func(service.QueryReply, error)) error {
				enter(q.Claim, func(err error) { done(service.QueryReply{}, err) })
				return nil
			},
		}
		held := &carrier{}
		ask := func() (sent, asked error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, sent = to(svc).Send(ctx, service.Command{Service: "bank", Carrier: held})
			ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, asked = to(svc).Query(ctx, service.Query{Service: "bank", Carrier: held})
			return sent, asked
		}
		sent, asked := ask()
		wantKind(t, "a command that waits", sent, service.KindDeadline)
		wantKind(t, "a query that waits", asked, service.KindDeadline)
		if held.unloaded != 2 { // the service has not done it
			t.Errorf("the carriers of a command and a query that were taken back were unloaded %d times", held.unloaded)
		}
		svc.starting = service.Errorf(service.KindUnavailable, "the service is still starting")
		sent, asked = ask()
		wantKind(t, "a command that waits for a start", sent, service.KindUnavailable)
		wantKind(t, "a query that waits for a start", asked, service.KindUnavailable)
		refusal = service.Errorf(service.KindOverloaded, "as many wait as may")
		sent, asked = ask()
		wantKind(t, "a command that was refused just then", sent, service.KindOverloaded)
		wantKind(t, "a query that was refused just then", asked, service.KindOverloaded)
		begins, refusal = true, nil
		sent, asked = ask()
		wantKind(t, "a command that has begun", sent, service.KindUnknown)
		wantKind(t, "a query that has begun", asked, service.KindDeadline)
	})
}

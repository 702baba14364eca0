// Package router brings commands and queries to their service. It separates the doors, which know names and
// keys, from what runs services: a sender does not know where a service runs, and what runs it does not know
// who waits.
package router

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Service is a service as its senders see it, wherever it runs. Its methods do not block, and are safe for
// concurrent use.
type Service interface {
	// Submit submits a command. Unless it returns an error, done is called exactly once, from any goroutine.
	Submit(c service.Command, done func(service.Reply, error)) error
	// Query submits a query; in all else it is like Submit.
	Query(q service.Query, done func(service.QueryReply, error)) error
	// Starting is the error of a request for an entity that cannot wait for the service to start; nil if it
	// need not wait.
	Starting(key service.Key) error
}

// Find finds where a service runs, or says why it does not run anywhere.
type Find func(name service.Name) (Service, error)

// Router submits commands and queries to the services that Find knows, and waits for outcomes on behalf of
// senders that wait. It is safe for concurrent use.
type Router struct{ find Find }

// New makes a router.
func New(find Find) *Router { return &Router{find} }

// SendAsync submits a command and never blocks. If it returns an error, the command was refused and done is
// not called. Otherwise done is called exactly once, with the result of the command; it must not block.
func (r *Router) SendAsync(c service.Command, done func(service.Reply, error)) error {
	svc, err := r.find(c.Service)
	if err == nil {
		err = svc.Submit(c, carried(c.Carrier, c.ID, done))
	}
	if err != nil {
		unload(c.Carrier)
	}
	return err
}

// Send submits a command and waits for its outcome. If ctx ends before the command has begun, the command is
// not carried out; if ctx ends later, the error has KindUnknown.
func (r *Router) Send(ctx context.Context, c service.Command) (service.Reply, error) {
	if err := ctx.Err(); err != nil {
		unload(c.Carrier)
		return service.Reply{}, service.NotBegun(c.Service, err)
	}
	if deadline, ok := ctx.Deadline(); ok && (c.Deadline.IsZero() || deadline.Before(c.Deadline)) {
		c.Deadline = deadline
	}
	if c.Gone == nil {
		c.Gone = ctx.Done()
	}
	svc, err := r.find(c.Service)
	if err != nil {
		unload(c.Carrier)
		return service.Reply{}, err
	}
	outcome := newOutcome[service.Reply](c.Carrier)
	c.Claim = outcome.claim
	if err := svc.Submit(c, carried(c.Carrier, c.ID, outcome.done)); err != nil {
		unload(c.Carrier)
		return service.Reply{}, err
	}
	c.Data = nil // the service owns it now
	return outcome.wait(ctx, func() error { return waitedInVain(svc, c.Service, c.Key, ctx.Err()) }, func() error {
		return &service.Error{Op: "send", Service: c.Service, Kind: service.KindUnknown, Err: ctx.Err(),
			Message: "gave up waiting for the outcome; the command may still be carried out, " +
				"send the same command id again to learn it"}
	})
}

// Query submits a query and waits for its answer.
func (r *Router) Query(ctx context.Context, q service.Query) (service.QueryReply, error) {
	if err := ctx.Err(); err != nil {
		unload(q.Carrier)
		return service.QueryReply{}, service.NotBegun(q.Service, err)
	}
	if deadline, ok := ctx.Deadline(); ok && (q.Deadline.IsZero() || deadline.Before(q.Deadline)) {
		q.Deadline = deadline
	}
	svc, err := r.find(q.Service)
	if err != nil {
		unload(q.Carrier)
		return service.QueryReply{}, err
	}
	if q.Gone == nil {
		q.Gone = ctx.Done()
	}
	outcome := newOutcome[service.QueryReply](q.Carrier)
	carrier := q.Carrier
	q.Claim = outcome.claim
	if err := svc.Query(q, func(r service.QueryReply, err error) {
		unload(carrier) // there may have been no reply
		outcome.done(r, err)
	}); err != nil {
		unload(carrier)
		return service.QueryReply{}, err
	}
	q.Data = nil // the service owns it now
	return outcome.wait(ctx, func() error { return waitedInVain(svc, q.Service, q.Key, ctx.Err()) },
		func() error { return service.NotBegun(q.Service, ctx.Err()) })
}

// outcome is the result of a request whose sender waits.
type outcome[R any] struct {
	claim   *service.Claim
	carrier service.Carrier
	came    chan result[R]
}

type result[R any] struct {
	reply R
	err   error
}

func newOutcome[R any](carrier service.Carrier) outcome[R] {
	return outcome[R]{new(service.Claim), carrier, make(chan result[R], 1)}
}

func (o outcome[R]) done(r R, err error) { o.came <- result[R]{r, err} }

// wait waits for the outcome. If ctx ends first, the request is taken back and the error is refused; if the
// request has begun already, it is late.
func (o outcome[R]) wait(ctx context.Context, refused, late func() error) (none R, err error) {
	select {
	case r := <-o.came:
		return r.reply, r.err
	case <-ctx.Done():
	}
	switch {
	case o.claim.Refuse():
		unload(o.carrier)
		return none, refused()
	case o.claim.Refused(): // by someone else, who answers it now
		r := <-o.came
		return r.reply, r.err
	}
	return none, late()
}

// waitedInVain is the error of a request whose sender gave up before it began.
func waitedInVain(svc Service, name service.Name, key service.Key, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		if starting := svc.Starting(key); starting != nil {
			return starting
		}
	}
	return service.NotBegun(name, err)
}

// unload says that nothing of a command or query is held.
func unload(c service.Carrier) {
	if c != nil {
		c.Unload()
	}
}

// carried asks the carrier of a command before done gets the reply.
func carried(
	carrier service.Carrier, id service.CommandID, done func(service.Reply, error),
) func(service.Reply, error) {
	if carrier == nil {
		return done
	}
	return func(r service.Reply, err error) {
		carrier.Unload()
		if err == nil {
			if full := carrier.Load(len(r.Data)); full != nil {
				done(service.Reply{}, withheld(id, full))
				return
			}
		}
		done(r, err)
	}
}

// withheld is the error of a command that was carried out, but whose reply has no room. For the sender it is
// like any unknown outcome, except for the message: the same id again brings the reply.
func withheld(id service.CommandID, full error) error {
	e := &service.Error{Op: "send", Kind: service.KindUnknown, Err: full,
		Message: "the command was carried out, but there is no room for its reply now; " +
			"send the same command id again to get it"}
	if id == "" {
		e.Message = "the command was carried out, but there is no room for its reply now"
	}
	var why *service.Error
	if errors.As(full, &why) {
		e.Resource, e.Used, e.Limit, e.RetryAfter, e.Detail = why.Resource, why.Used, why.Limit, why.RetryAfter,
			why.Detail
	}
	return e
}

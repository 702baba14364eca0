// Package streams carries events, and commands and queries with their answers, over connections that stay
// open: WebSockets that speak bulkhead.v1.json or CloudEvents, and server-sent events. The gateway's
// STREAM.md describes the first for authors of clients.
//
// The gateway decides which requests may come in, and passes on a request that becomes a stream. What a
// stream needs of a host, and of the answer to its request, is in small interfaces.
package streams

import (
	"context"
	"net/http"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Host is all that streams need of a host. All methods are safe for concurrent use; those without a context
// do not block.
type Host interface {
	Commander
	Reader
}

// Commander carries out commands and queries.
type Commander interface {
	// SendAsync submits a command. Unless it returns an error, done is called exactly once with the outcome,
	// on a goroutine of the host; done must not block.
	SendAsync(c service.Command, done func(service.Reply, error)) error
	// Query returns when everything on which the answer depends is on disk.
	Query(ctx context.Context, q service.Query) (service.QueryReply, error)
	flight.Accepter
}

// Reader reads events.
type Reader interface {
	// Head is the position of a service's last event; KindNotFound if there is no such service.
	Head(name service.Name) (service.Position, error)
	// Place is the cursor after which a reader begins, and Cursor that of a position. Either may have to read
	// the log.
	Place(ctx context.Context, name service.Name, from service.From) (service.Cursor, error)
	Cursor(ctx context.Context, name service.Name, p service.Position) (service.Cursor, error)
	// Subscribe begins to read events. The subscriber need not be closed.
	Subscribe(ctx context.Context, s service.Selection) (service.Subscriber, error)
}

// Answer is the answer to a request that becomes a stream. It also implements http.Hijacker and what an
// http.ResponseController needs. A stream no longer uses it when the method that was given it returns.
type Answer interface {
	http.ResponseWriter
	// Flight is the account of the connection.
	Flight() *flight.Account
	// Take takes n bytes of it until the answer has ended.
	Take(n int) error
	// LimitWrite gives the client its time for what is written next, and more only as it takes some of that.
	LimitWrite()
	// Problem is the part of an error that the client may see; the rest goes to the log. It is safe for
	// concurrent use.
	Problem(err error) api.Problem
}

// Metrics counts what happens. It must not block, and is called concurrently.
type Metrics interface {
	// Stream counts an opened stream; call the function when it has ended.
	Stream(protocol string) (ended func())
	// Message counts a message of a WebSocket client. Op is one of few values.
	Message(op string)
}

// Options bound streams. All fields are required.
type Options struct {
	Streams       int           // maximum number of open streams
	MessageBytes  int64         // maximum size of one message of a client
	InFlight      int           // maximum number of commands and queries of one WebSocket without an answer
	Subscriptions int           // maximum number for one WebSocket
	Credits       int64         // maximum credit of one subscription, in events
	PingTime      time.Duration // interval at which something is sent on a stream without events
	WriteTime     time.Duration // how long the client may not take what is written
	RequestTime   time.Duration // maximum wait for a query, and for the place of a cursor
	Linger        time.Duration // how long a client is still read after the close frame

	// Stopping ends when streams must close and no new ones begin, and Cut when those that are left are cut
	// off.
	Stopping, Cut context.Context
}

// LingerTime is the usual [Options.Linger].
const LingerTime = time.Second

// Streams are the streams of one gateway. They are safe for concurrent use.
type Streams struct {
	host    Host
	traffic *flight.Traffic
	metrics Metrics
	options Options

	open chan struct{} // has one for each open stream
}

// New makes the streams of a host; none is open.
func New(h Host, t *flight.Traffic, m Metrics, o Options) *Streams {
	return &Streams{host: h, traffic: t, metrics: m, options: o, open: make(chan struct{}, o.Streams)}
}

// Open is the number of open streams.
func (s *Streams) Open() int { return len(s.open) }

// begin registers a stream; call what it returns at its end.
func (s *Streams) begin(protocol string) (ended func(), err error) {
	if s.options.Stopping.Err() != nil {
		return nil, flight.Stopping()
	}
	select {
	case s.open <- struct{}{}:
	default:
		return nil, &service.Error{Kind: service.KindOverloaded, Message: "there are too many open streams",
			RetryAfter: flight.RetrySoon,
			Resource:   "streams", Used: int64(len(s.open)), Limit: int64(cap(s.open))}
	}
	gone := s.metrics.Stream(protocol)
	return func() { gone(); <-s.open }, nil
}

// wait bounds the wait for an answer that may have a deadline.
func (s *Streams) wait(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	return flight.Await(ctx, s.options.RequestTime, deadline)
}

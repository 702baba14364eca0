package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/internal/ws"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Stream is one WebSocket connection with the protocol bulkhead.v1.json, for concurrent commands, queries and
// subscriptions. It is safe for concurrent use. When the connection has failed, every call fails; dial
// another one.
type Stream struct {
	conn   *ws.Conn
	limits StreamLimits

	out     chan []byte   // to the writer
	slots   chan struct{} // one for each command or query without an answer
	closing chan struct{} // closed by fail
	life    lifecycle.Life

	mu      sync.Mutex // guards all below; held for a few instructions
	err     error      // why the connection ended
	next    uint64     // the next id
	pending map[string]func(*api.ServerMessage, error)
	subs    map[string]*Subscription
}

// pingEvery is the interval at which the writer pings. A host that has been silent for twice that is
// considered gone.
const pingEvery = 20 * time.Second

// writeWait bounds one write.
const writeWait = 20 * time.Second

// Stream dials a connection. ctx is only for dialling. The caller closes the stream.
func (c *Client) Stream(ctx context.Context) (*Stream, error) {
	target := *c.base
	target.Scheme = map[string]string{"http": "ws", "https": "wss"}[target.Scheme]
	header := http.Header{}
	if c.options.Token != "" {
		header.Set("Authorization", "Bearer "+c.options.Token)
	}
	conn, refusal, err := ws.Dial(ctx, target.String()+"/v1/stream", header, ws.DialOptions{
		Subprotocol: api.ProtocolStream, HandshakeTime: 15 * time.Second, Limit: maxAnswer, WriteTime: writeWait,
	})
	if err != nil {
		if refusal != nil {
			return nil, errorOf(refusal) // the beginning of the body, as far as the library has read it
		}
		return nil, c.broken(err, false)
	}
	s := &Stream{
		conn: conn, closing: make(chan struct{}), out: make(chan []byte, 256),
		pending: map[string]func(*api.ServerMessage, error){}, subs: map[string]*Subscription{},
	}
	_ = conn.SetReadDeadline(time.Now().Add(2 * pingEvery)) // if this fails, so does reading below
	hello, err := s.read()
	if err == nil && (hello.Op != api.OpHello || hello.Limits == nil || hello.Limits.InFlight < 1) {
		err = errors.New("it did not begin with hello")
	}
	if err != nil {
		_ = conn.Close()
		return nil, c.broken(err, false)
	}
	s.limits = StreamLimits(*hello.Limits)
	s.slots = make(chan struct{}, s.limits.InFlight)
	conn.OnControl(time.Second, func() error { return conn.SetReadDeadline(time.Now().Add(2 * pingEvery)) })
	conn.Hold()
	s.life.Go(s.readAll)
	s.life.Go(s.writeAll)
	return s, nil
}

// StreamLimits are the host's limits for one connection.
type StreamLimits struct {
	MessageBytes  int64 // of one message to the host
	InFlight      int   // commands and queries without an answer yet
	Subscriptions int   // number of subscriptions
	Credits       int64 // events on their way to one subscription
}

// Limits returns the host's limits for this connection.
func (s *Stream) Limits() StreamLimits { return s.limits }

// Close ends the connection and waits for its goroutines. Commands without an
// answer end as unknown. It must not be called from a function given to SendAsync.
func (s *Stream) Close() error {
	return s.life.Close(context.Background(), func() { s.fail(errors.New("closed by this side")) }, nil)
}

// Done is closed when the connection has ended; Err says why.
func (s *Stream) Done() <-chan struct{} { return s.closing }

// Err is the reason for the end of the connection; nil while it is up.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fail ends the connection once: everything that waits gets the error.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	err = &lostError{err}
	s.err = err
	pending := s.pending
	s.pending = nil
	close(s.closing)
	s.mu.Unlock()
	for _, done := range pending {
		done(nil, err)
	}
}

func (s *Stream) read() (*api.ServerMessage, error) {
	r, err := s.conn.NextReader()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	m := new(api.ServerMessage)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, err
	}
	return m, nil
}

func (s *Stream) readAll() {
	for {
		m, err := s.read()
		if err == nil {
			err = s.take(m)
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// take handles one message on the reading goroutine; it does not block.
func (s *Stream) take(m *api.ServerMessage) error {
	switch m.Op {
	case api.OpReply, api.OpError, api.OpSubscribed, api.OpPong:
		s.mu.Lock()
		done := s.pending[m.ID]
		delete(s.pending, m.ID)
		s.mu.Unlock()
		switch {
		case done != nil && m.Op == api.OpError && m.Problem != nil:
			done(nil, m.Problem.Err())
		case done != nil:
			done(m, nil)
		case m.Op == api.OpError && m.Problem != nil && m.ID == "":
			return m.Problem.Err() // about a message of ours that the host could not read
		}
	case api.OpEvent, api.OpCheckpoint, api.OpUnsubscribed:
		s.mu.Lock()
		sub := s.subs[m.Sub+m.ID] // the first is set in events and checkpoints, the second in unsubscribed
		if m.Op == api.OpUnsubscribed {
			delete(s.subs, m.ID)
		}
		s.mu.Unlock()
		if sub != nil {
			return sub.take(m)
		}
	}
	return nil
}

// writeAll is the only goroutine that writes. It gathers what waits into one write to the connection.
func (s *Stream) writeAll() {
	defer s.conn.Close()
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		var err error
		select {
		case text := <-s.out:
			err = s.conn.Send(text)
			for n := len(s.out); n > 0 && err == nil; n-- {
				err = s.conn.Send(<-s.out)
			}
		case <-ping.C:
			err = s.conn.Ping(writeWait)
		case <-s.closing:
			// The host may have gone; errors no longer matter.
			_ = s.conn.SayClose(ws.CloseNormal, "", time.Second)
			return
		}
		if err == nil {
			err = s.conn.Flush(writeWait)
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// write gives text to the writer.
func (s *Stream) write(ctx context.Context, text []byte) error {
	select {
	case s.out <- text:
		return nil
	case <-s.closing:
		return s.lost(s.Err(), false)
	case <-ctx.Done():
		return service.Errorf(service.KindOf(ctx.Err()), "the connection is busy: %w", ctx.Err())
	}
}

// ask sends a message and calls done once on the reading goroutine: with the answer, or with the error. If
// ask itself returns an error, done is not called.
func (s *Stream) ask(ctx context.Context, m func(id string) []byte, done func(*api.ServerMessage, error)) error {
	select {
	case s.slots <- struct{}{}:
	case <-s.closing:
		return s.lost(s.Err(), false)
	case <-ctx.Done():
		return service.Errorf(service.KindOf(ctx.Err()), "too much in flight on this connection: %w", ctx.Err())
	}
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return s.lost(s.Err(), false)
	}
	s.next++
	id := strconv.FormatUint(s.next, 36)
	s.pending[id] = func(m *api.ServerMessage, err error) { <-s.slots; done(m, err) }
	s.mu.Unlock()
	if err := s.write(ctx, m(id)); err != nil {
		s.mu.Lock()
		_, ours := s.pending[id]
		delete(s.pending, id)
		s.mu.Unlock()
		if !ours {
			return nil // the connection ended meanwhile, and done was called
		}
		<-s.slots
		return err
	}
	return nil
}

// lostError is the error of requests that had no answer when the connection ended.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// lost converts an error: one of the host is unchanged; the end of the connection means that a message that
// may have been sent has an unknown outcome.
func (s *Stream) lost(err error, sent bool) error {
	var lost *lostError
	switch {
	case !errors.As(err, &lost):
		return err
	case sent:
		return service.Errorf(service.KindUnknown, "the connection ended before the answer; send the same command id "+
			"again: %w", err)
	}
	return service.Errorf(service.KindUnavailable, "the connection has ended: %w", err)
}

// SendAsync sends a command. While the connection has as many requests in flight as the host allows, it
// waits. It returns when the command is on its way. Then done is called once, on the reading goroutine; it
// must not block.
func (s *Stream) SendAsync(ctx context.Context, c service.Command, done func(service.Reply, error)) error {
	return s.ask(ctx, func(id string) []byte { return appendCommand(ctx, id, &c) },
		func(m *api.ServerMessage, err error) {
			if err != nil {
				done(service.Reply{}, s.lost(err, true))
				return
			}
			done(m.Value(), nil)
		})
}

// Send sends a command and returns when its events are on disk.
func (s *Stream) Send(ctx context.Context, c service.Command) (service.Reply, error) {
	type answer struct {
		r   service.Reply
		err error
	}
	got := make(chan answer, 1)
	if err := s.SendAsync(ctx, c, func(r service.Reply, err error) { got <- answer{r, err} }); err != nil {
		return service.Reply{}, err
	}
	select {
	case a := <-got:
		return a.r, a.err
	case <-ctx.Done():
		return service.Reply{},
			service.Errorf(service.KindUnknown, "not waited for; send the same command id again: %w", ctx.Err())
	}
}

// Query sends a query to an entity and returns the answer.
func (s *Stream) Query(ctx context.Context, q service.Query) (service.QueryReply, error) {
	type answer struct {
		r   service.QueryReply
		err error
	}
	got := make(chan answer, 1)
	err := s.ask(ctx, func(id string) []byte { return appendQuery(ctx, id, &q) },
		func(m *api.ServerMessage, err error) {
			if err != nil {
				got <- answer{err: s.lost(err, false)}
				return
			}
			got <- answer{r: service.QueryReply{Data: m.Data(), Version: m.Version, Fuel: m.Fuel}}
		})
	if err != nil {
		return service.QueryReply{}, err
	}
	select {
	case a := <-got:
		return a.r, a.err
	case <-ctx.Done():
		return service.QueryReply{}, service.Errorf(service.KindOf(ctx.Err()), "not waited for: %w", ctx.Err())
	}
}

// appendCommand encodes a command by hand: json.Marshal would check and compact the data once more, and the
// host checks it anyway.
func appendCommand(ctx context.Context, id string, c *service.Command) []byte {
	b := make([]byte, 0, 192+len(c.Data)+len(c.Metadata))
	b = appendCall(b, api.OpCommand, id, c.Service, c.Key, c.Type, c.Data)
	if c.ID != "" {
		b = append(b, `,"command_id":`...)
		b = api.AppendString(b, string(c.ID))
	}
	if c.Expected != nil {
		b = append(b, `,"expected_version":`...)
		b = strconv.AppendUint(b, uint64(*c.Expected), 10)
	}
	if len(c.Metadata) > 0 {
		text, _ := api.Metadata(c.Metadata).MarshalJSON() // never fails
		b = append(append(b, `,"metadata":`...), text...)
	}
	return closeCall(ctx, b, c.Deadline)
}

func appendQuery(ctx context.Context, id string, q *service.Query) []byte {
	b := make([]byte, 0, 128+len(q.Data))
	return closeCall(ctx, appendCall(b, api.OpQuery, id, q.Service, q.Key, q.Type, q.Data), q.Deadline)
}

func appendCall(
	b []byte, op api.Op, id string, name service.Name, key service.Key, typ service.Type, data []byte,
) []byte {
	b = append(b, `{"op":"`...)
	b = append(b, op...)
	b = append(b, `","id":"`...)
	b = append(b, id...)
	b = append(b, `","service":`...)
	b = api.AppendString(b, string(name))
	b = append(b, `,"key":`...)
	b = api.AppendString(b, string(key))
	b = append(b, `,"type":`...)
	b = api.AppendString(b, string(typ))
	switch {
	case len(data) == 0:
	case isJSON(data):
		b = append(append(b, `,"data":`...), data...)
	default:
		b = append(b, `,"data_base64":"`...)
		b = append(base64.StdEncoding.AppendEncode(b, data), '"')
	}
	return b
}

func closeCall(ctx context.Context, b []byte, deadline time.Time) []byte {
	if left, ok := left(ctx, deadline); ok {
		b = append(b, `,"timeout_ms":`...)
		b = append(b, api.FormatDeadline(left)...)
	}
	return append(b, '}')
}

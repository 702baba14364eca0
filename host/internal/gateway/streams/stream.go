package streams

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/ws"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// stream is one connection that speaks bulkhead.v1.json.
//
// The receiving goroutine, which is the handler's, reads messages and submits their requests. The sending
// goroutine encodes and writes answers and events. Each subscription has one goroutine that waits for events.
// Nothing grows without bound: a command holds a slot until its answer is written, and when the slots and the
// few notices are used up, a client that does not read is not read either. The connection's flight counts the
// memory of messages, answers and events.
type stream struct {
	s *Streams
	k *socket

	answer Answer // to the request that became this connection

	ctx    context.Context // ends when the connection must end
	cancel context.CancelCauseFunc

	slots   chan struct{} // has one for each command or query whose answer is not written
	answers *outcomes     // of commands and queries
	notices chan []byte   // from the receiving goroutine, which waits if it is full
	batches chan batch    // from the subscriptions, which wait if it is full
	last    chan struct{} // closed when the sender will get nothing more

	waiting sync.WaitGroup // queries and subscriptions

	mu   sync.Mutex // guards subs
	subs map[string]*subscription
}

// Serve turns a request that speaks bulkhead.v1.json into a WebSocket, and serves it until it ends. An error
// means that the request has not become a WebSocket.
func (s *Streams) Serve(a Answer, r *http.Request) error {
	if !ws.IsUpgrade(r) {
		a.Header().Set("Upgrade", "websocket")
		return api.WithStatus(http.StatusUpgradeRequired, service.Errorf(service.KindUnsupported, "this is a "+
			"WebSocket with the subprotocol %s", api.ProtocolStream))
	}
	ended, err := s.begin(api.ProtocolStream)
	if err != nil {
		return err
	}
	defer ended()
	k, err := s.upgrade(a, r, api.ProtocolStream, s.options.MessageBytes)
	if k == nil {
		return err
	}
	t := &stream{
		s: s, k: k, answer: a,
		slots: make(chan struct{}, s.options.InFlight), answers: newOutcomes(),
		notices: make(chan []byte, 16), batches: make(chan batch), last: make(chan struct{}),
		subs: map[string]*subscription{},
	}
	// the request ends with the upgrade, but the stream does not
	t.ctx, t.cancel = context.WithCancelCause(context.WithoutCancel(r.Context()))
	defer t.cancel(nil)
	defer context.AfterFunc(s.options.Stopping, k.drain)()
	defer context.AfterFunc(s.options.Cut, func() { t.cancel(errCutOff); _ = k.conn.Close() })()

	sent := make(chan struct{})
	go func() { // the sending goroutine; joined below
		defer close(sent)
		if err := t.sendAll(); err != nil {
			t.cancel(err)
			// Nothing can be sent after a close frame. The receiving goroutine wrote that frame when it
			// ended, and the frame may still wait in the cork for the farewell.
			if !errors.Is(err, ws.ErrCloseSent) {
				_ = k.conn.Close() // ends the receiving
			}
		}
	}()
	t.notice(api.AppendHello(nil, api.Limits{
		MessageBytes: s.options.MessageBytes, InFlight: s.options.InFlight, Subscriptions: s.options.Subscriptions,
		Credits: s.options.Credits,
	}))
	err = t.receiveAll()
	t.finish(err)
	close(t.last)
	k.settle(sent, err)
	t.end()
	k.farewell(s.options.Cut, err)
	return nil
}

// put gives an answer to the sending goroutine. It never waits.
func (t *stream) put(o outcome) {
	if o.err != nil {
		o.err = o.carried.Fit(o.err)
	}
	if !t.answers.put(o) {
		o.carried.Free()
	}
}

// end drops the answers that were not sent, and later ones.
func (t *stream) end() {
	for _, o := range t.answers.close() {
		o.carried.Free()
	}
	t.k.flight.Give(t.k.keep())
}

var errCutOff = errors.New("cut off")

// receiveAll handles messages until the connection ends, and returns the reason.
func (t *stream) receiveAll() error {
	for {
		text, err := t.k.receive()
		var full *noRoom
		if err != nil && !errors.As(err, &full) {
			return err
		}
		id := ""
		if full != nil {
			id = api.MessageID(full.start)
		} else {
			id, err = t.message(text)
		}
		if err != nil {
			t.refuse(id, "", err)
		}
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		t.k.shrink()
	}
}

// message handles a message. An error is for the sender, about the message with that id.
func (t *stream) message(text []byte) (id string, err error) {
	f := t.k.flight
	room := api.DecodingRoom(len(text))
	if err := f.Take(room); err != nil {
		return api.MessageID(text[:min(len(text), startBytes)]), err
	}
	m, err := api.DecodeClientMessage(text)
	f.Give(room)
	if err != nil {
		t.s.metrics.Message("malformed")
		return m.ID, err
	}
	return m.ID, t.handle(&m)
}

// finish waits for the requests in flight if the host is stopping and the client is still there; otherwise
// their answers are given up. Commands go on in either case.
func (t *stream) finish(err error) {
	t.mu.Lock()
	for _, sub := range t.subs {
		sub.cancel()
	}
	t.mu.Unlock()
	var c *ws.Closing
	if errors.As(err, &c) && c.Code == ws.CloseGoingAway {
		for range cap(t.slots) {
			select {
			case t.slots <- struct{}{}:
			case <-t.ctx.Done():
			}
		}
	} else {
		t.cancel(err)
	}
	t.waiting.Wait()
}

// handle carries out a message's request. An error is for the sender.
func (t *stream) handle(m *api.ClientMessage) error {
	switch m.Op {
	case api.OpSubscribe, api.OpCredit, api.OpUnsubscribe, api.OpCommand, api.OpQuery:
		if m.ID == "" {
			return service.Errorf(service.KindInvalid, "%s needs an id, which its answer will have", m.Op)
		}
	case api.OpPing:
	default:
		t.s.metrics.Message("unknown")
		return service.Errorf(service.KindUnsupported, "there is no op %.80q; there are subscribe, credit, "+
			"unsubscribe, command, query and ping", m.Op)
	}
	t.s.metrics.Message(string(m.Op))
	switch m.Op {
	case api.OpSubscribe:
		return t.subscribe(m)
	case api.OpCredit:
		return t.credit(m)
	case api.OpUnsubscribe:
		return t.unsubscribe(m)
	case api.OpCommand:
		return t.command(m)
	case api.OpQuery:
		return t.query(m)
	}
	t.notice(api.AppendPong(nil, m.ID))
	return nil
}

// notice queues a message of the receiving goroutine. It waits while the client does not read, and then no
// messages are received.
func (t *stream) notice(text []byte) {
	select {
	case t.notices <- text:
	case <-t.ctx.Done():
	}
}

func (t *stream) refuse(id string, command service.CommandID, err error) {
	p := t.answer.Problem(err)
	p.CommandID = command
	t.notice(api.AppendProblem(nil, api.OpError, id, &p))
}

// slot takes a slot, or returns an error if there is none.
func (t *stream) slot() error {
	select {
	case t.slots <- struct{}{}:
		return nil
	default:
		return &service.Error{
			Kind: service.KindOverloaded, RetryAfter: flight.RetrySoon, Resource: "requests_of_connection",
			Used: int64(len(t.slots)), Limit: int64(cap(t.slots)),
			Message: "too many commands and queries of this connection have no answer yet; hello says how many may",
		}
	}
}

// claim takes a slot, and carries the message as carry does. If that fails the slot is free again.
func (t *stream) claim(m *api.ClientMessage, beside int) (*flight.Carriage, error) {
	if err := t.slot(); err != nil {
		return nil, err
	}
	carried, err := t.carry(m, beside)
	if err != nil {
		<-t.slots
	}
	return carried, err
}

// carry takes the memory of a command or query, and of the call, until the host no longer needs it. A large
// message is passed on without a copy.
func (t *stream) carry(m *api.ClientMessage, beside int) (*flight.Carriage, error) {
	f := t.k.flight
	if m.Keeps() {
		taken := t.k.keep()
		c, err := f.Carry(taken, beside)
		if err != nil {
			f.Give(taken)
		}
		return c, err
	}
	size := len(m.Body()) + len(m.Metadata)
	if err := f.Take(size); err != nil {
		return nil, err
	}
	c, err := f.Carry(size, beside)
	if err != nil {
		f.Give(size)
	}
	return c, err
}

// target reads the common part of commands and queries.
func (t *stream) target(m *api.ClientMessage) (c service.Query, err error) {
	if c.Service, err = service.ParseName(string(m.Service)); err != nil {
		return c, err
	}
	if c.Key, err = service.ParseKey(m.Key); err != nil {
		return c, err
	}
	if c.Type, err = service.ParseType(m.Type); err != nil {
		return c, err
	}
	c.Data = m.Body()
	if m.DataBase64 != nil {
		if err := t.k.flight.CheckUndeclared(t.s.host, c.Service, c.Data); err != nil {
			return c, err
		}
	}
	if m.TimeoutMS != nil {
		left := api.DeadlineOf(*m.TimeoutMS)
		if left == 0 {
			return c, flight.TooLate()
		}
		c.Deadline = time.Now().Add(left)
	}
	return c, nil
}

func (t *stream) command(m *api.ClientMessage) error {
	c, err := t.target(m)
	if err != nil {
		return err
	}
	cmd := service.Command{
		Service: c.Service, Key: c.Key, Type: c.Type, Data: c.Data, Deadline: c.Deadline,
		Expected: m.Expected, Metadata: m.MetadataOf(), Gone: t.ctx.Done(),
	}
	if m.CommandID == "" {
		cmd.ID = service.NewCommandID()
	} else if cmd.ID, err = service.ParseCommandID(m.CommandID); err != nil {
		return err
	}
	carried, err := t.claim(m, flight.CallBytes)
	if err != nil {
		return err
	}
	cmd.Carrier = carried
	id, name, command := m.ID, cmd.Service, cmd.ID
	err = t.s.host.SendAsync(cmd, func(r service.Reply, err error) {
		t.put(outcome{id: id, service: name, command: command, reply: r, err: err, carried: carried})
	})
	if err != nil { // then the claim is taken, and no one else answers
		t.put(outcome{id: id, command: command, err: err, carried: carried})
	}
	return nil
}

func (t *stream) query(m *api.ClientMessage) error {
	q, err := t.target(m)
	if err != nil {
		return err
	}
	carried, err := t.claim(m, flight.QueryBytes)
	if err != nil {
		return err
	}
	q.Carrier = carried
	id, name := m.ID, q.Service
	t.waiting.Go(func() { // at most as many as there are slots
		ctx, cancel := t.s.wait(t.ctx, q.Deadline)
		defer cancel()
		sent := q
		q.Data = nil // the host owns it now
		r, err := t.s.host.Query(ctx, sent)
		t.put(outcome{id: id, service: name, query: &r, err: err, carried: carried})
	})
	return nil
}

// together is how many messages are sent before a flush, so that a steady flow does not delay the first ones.
const together = 256

// sendAll writes until there is nothing more to come, or the client takes no more.
func (t *stream) sendAll() error {
	beat := time.NewTicker(t.s.options.PingTime)
	defer beat.Stop()
	var buf []byte // for one message; reused
	for {
		var err error
		select {
		case <-t.answers.news:
			buf, err = t.sendNext(buf)
		case text := <-t.notices:
			err = t.k.send(text)
		case b := <-t.batches:
			buf, err = b.send(t.k, buf)
		case <-beat.C:
			err = t.k.ping()
		case <-t.last:
			return t.sendRest(buf)
		}
		// Other messages that are ready leave in the same packet, up to a bound.
		more := true
		for n := 0; n < together && more && err == nil; n++ {
			buf, more, err = t.sendPresent(buf)
		}
		if err == nil {
			err = t.k.flush()
		}
		if err != nil {
			return err
		}
	}
}

// sendRest writes what is queued, when nothing more will be. The farewell flushes.
func (t *stream) sendRest(buf []byte) (err error) {
	for more := true; more && err == nil; {
		buf, more, err = t.sendPresent(buf)
	}
	return err
}

// sendPresent sends one message that is ready. more is false if there is none.
func (t *stream) sendPresent(buf []byte) (_ []byte, more bool, err error) {
	select {
	case <-t.answers.news:
		buf, err = t.sendNext(buf)
	case text := <-t.notices:
		err = t.k.send(text)
	case b := <-t.batches:
		buf, err = b.send(t.k, buf)
	default:
		return buf, false, nil
	}
	return buf, true, err
}

// sendNext sends the first of the answers.
func (t *stream) sendNext(buf []byte) ([]byte, error) {
	o, ok := t.answers.take()
	if !ok {
		return buf, nil
	}
	return t.sendOutcome(buf, &o)
}

func (t *stream) sendOutcome(buf []byte, o *outcome) ([]byte, error) {
	buf = buf[:0]
	var text api.Pieces
	size := len(o.reply.Data)
	if o.query != nil {
		size = len(o.query.Data)
	}
	t.k.pacer = t.s.traffic.Pace(t.ctx, o.service, size)
	defer t.k.pacer.End()
	switch {
	case o.err != nil:
		p := t.answer.Problem(o.err)
		p.CommandID = o.command
		text = api.Text(api.AppendProblem(buf, api.OpError, o.id, &p))
	case o.query != nil:
		text = api.QueryAnswerText(buf, o.id, o.query)
	default:
		text = api.CommandReplyText(buf, o.id, &o.reply)
	}
	err := t.k.sendPieces(&text)
	o.carried.Free()
	<-t.slots
	if whole, ok := text.Short(); ok {
		buf = whole
	}
	return kept(buf), err
}

// kept is a buffer for the next message, unless it has grown large.
func kept(buf []byte) []byte {
	if cap(buf) > ws.MaxGathered {
		return nil
	}
	return buf
}

package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// stream is one connection that speaks bulkhead.v1.json.
//
// The receiving goroutine reads messages and hands in what they ask for; it is
// the handler's own. The sending goroutine encodes and writes answers and events.
// Each subscription has one goroutine that waits for events. Nothing here grows:
// a command holds a slot until its answer is written, and a client that does not
// read is not read either once the slots and the few notices are used up.
type stream struct {
	s  *Server
	k  *socket
	id string // of the request that became this connection

	ctx    context.Context // ends when the connection must
	cancel context.CancelCauseFunc

	slots   chan struct{} // one for each command or query without a written answer
	answers chan outcome  // has room for all slots, so that giving an answer never waits
	notices chan []byte   // from the receiving goroutine, which waits if it is full
	batches chan batch    // from the subscriptions, which wait if it is full
	last    chan struct{} // closed when nothing more will be given to the sender

	waiting sync.WaitGroup // queries and subscriptions

	mu   sync.Mutex // guards subs
	subs map[string]*subscription
}

// outcome is the answer to a command or a query, not encoded yet.
type outcome struct {
	id      string
	command service.CommandID
	reply   service.Reply
	query   *service.QueryReply // instead of reply
	err     error               // instead of both
}

// stream makes a WebSocket of a request and serves it until it ends.
func (s *Server) stream(a *answer, r *http.Request) error {
	if !isUpgrade(r) {
		a.Header().Set("Upgrade", "websocket")
		return withStatus(http.StatusUpgradeRequired, service.Errorf(service.KindUnsupported, "this is a WebSocket with the subprotocol %s", api.ProtocolStream))
	}
	ended, err := s.openStream(api.ProtocolStream)
	if err != nil {
		return err
	}
	defer ended()
	k, err := s.upgrade(a, r, api.ProtocolStream, s.options.MessageBytes)
	if k == nil {
		return err
	}
	t := &stream{
		s: s, k: k, id: a.id,
		slots: make(chan struct{}, s.options.InFlight), answers: make(chan outcome, s.options.InFlight),
		notices: make(chan []byte, 16), batches: make(chan batch), last: make(chan struct{}),
		subs: map[string]*subscription{},
	}
	t.ctx, t.cancel = context.WithCancelCause(context.WithoutCancel(r.Context())) // the request ends with the upgrade, the stream does not
	defer t.cancel(nil)
	defer context.AfterFunc(s.stopping, k.drain)()
	defer context.AfterFunc(s.cut, func() { t.cancel(errCutOff); _ = k.cork.Close() })()

	sent := make(chan struct{})
	go func() { // the sending goroutine; joined below
		defer close(sent)
		if err := t.sendAll(); err != nil {
			t.cancel(err)
			// After a close frame nothing can be sent. It was the receiving goroutine that
			// wrote it, on its way out, and it may still wait in the cork for the farewell.
			if !errors.Is(err, websocket.ErrCloseSent) {
				_ = k.cork.Close() // ends the receiving
			}
		}
	}()
	t.notice(api.AppendHello(nil, api.Limits{
		MessageBytes: s.options.MessageBytes, InFlight: s.options.InFlight, Subscriptions: s.options.Subscriptions, Credits: s.options.Credits,
	}))
	err = t.receiveAll()
	t.finish(err)
	close(t.last)
	<-sent
	k.farewell(s.cut, err)
	return nil
}

var errCutOff = errors.New("cut off")

// receiveAll handles messages until the connection ends, and says why it did.
func (t *stream) receiveAll() error {
	var buf []byte
	for {
		text, err := t.k.receive(buf)
		if err != nil {
			return err
		}
		buf = text
		m, err := api.DecodeClientMessage(text)
		if err == nil {
			err = t.handle(&m)
		} else {
			t.s.metrics.Message("malformed")
		}
		if err != nil {
			t.refuse(m.ID, "", err)
		}
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		if cap(buf) > 4*maxCork {
			buf = nil // one large message is no reason to keep its memory
		}
	}
}

// finish lets what is in flight come to its end, if the host is stopping and the
// client is still there; else it is given up. Its commands go on either way.
func (t *stream) finish(err error) {
	t.mu.Lock()
	for _, sub := range t.subs {
		sub.cancel()
	}
	t.mu.Unlock()
	var c *closing
	if errors.As(err, &c) && c.code == websocket.CloseGoingAway {
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

// handle does what a message asks for. An error is for the sender.
func (t *stream) handle(m *api.ClientMessage) error {
	switch m.Op {
	case api.OpSubscribe, api.OpCredit, api.OpUnsubscribe, api.OpCommand, api.OpQuery:
		if m.ID == "" {
			return service.Errorf(service.KindInvalid, "%s needs an id, which its answer will have", m.Op)
		}
	case api.OpPing:
	default:
		t.s.metrics.Message("unknown")
		return service.Errorf(service.KindUnsupported, "there is no op %.80q; there are subscribe, credit, unsubscribe, command, query and ping", m.Op)
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

// notice queues a message of the receiving goroutine, and so reads no further
// while the client does not read.
func (t *stream) notice(text []byte) {
	select {
	case t.notices <- text:
	case <-t.ctx.Done():
	}
}

func (t *stream) refuse(id string, command service.CommandID, err error) {
	p := t.s.problem(err, t.id)
	p.CommandID = command
	t.notice(api.AppendProblem(nil, api.OpError, id, &p))
}

// slot takes a slot or says that there is none.
func (t *stream) slot() error {
	select {
	case t.slots <- struct{}{}:
		return nil
	default:
		return &service.Error{
			Kind: service.KindOverloaded, RetryAfter: retrySoon,
			Message: "too many commands and queries of this connection have no answer yet; hello says how many may",
		}
	}
}

// target reads what commands and queries have in common.
func (t *stream) target(m *api.ClientMessage) (c call, err error) {
	if c.service, err = service.ParseName(string(m.Service)); err != nil {
		return c, err
	}
	if c.key, err = service.ParseKey(m.Key); err != nil {
		return c, err
	}
	if c.typ, err = service.ParseType(m.Type); err != nil {
		return c, err
	}
	c.data = m.Body()
	if m.DataBase64 != nil {
		if err := t.s.takes(c.service, c.data); err != nil {
			return c, err
		}
	}
	if m.TimeoutMS != nil {
		left := api.DeadlineOf(*m.TimeoutMS)
		if left == 0 {
			return c, errTooLate()
		}
		c.deadline = time.Now().Add(left)
	}
	return c, nil
}

func (t *stream) command(m *api.ClientMessage) error {
	c, err := t.target(m)
	if err != nil {
		return err
	}
	cmd := service.Command{
		Service: c.service, Key: c.key, Type: c.typ, Data: c.data, Deadline: c.deadline,
		Expected: m.Expected, Metadata: m.MetadataOf(), Gone: t.ctx.Done(),
	}
	if m.CommandID == "" {
		cmd.ID = host.NewCommandID()
	} else if cmd.ID, err = service.ParseCommandID(m.CommandID); err != nil {
		return err
	}
	if err := t.slot(); err != nil {
		return err
	}
	id := m.ID
	err = t.s.backend.SendAsync(cmd, func(r service.Reply, err error) {
		t.answers <- outcome{id: id, command: cmd.ID, reply: r, err: err}
	})
	if err != nil { // and so nobody else gives the answer
		t.answers <- outcome{id: id, command: cmd.ID, err: err}
	}
	return nil
}

func (t *stream) query(m *api.ClientMessage) error {
	c, err := t.target(m)
	if err != nil {
		return err
	}
	if err := t.slot(); err != nil {
		return err
	}
	q := service.Query{Service: c.service, Key: c.key, Type: c.typ, Data: c.data, Deadline: c.deadline}
	id := m.ID
	t.waiting.Go(func() { // at most as many as there are slots
		ctx, cancel := t.s.wait(t.ctx, c.deadline)
		defer cancel()
		r, err := t.s.backend.Query(ctx, q)
		t.answers <- outcome{id: id, query: &r, err: err}
	})
	return nil
}

// together bounds how many messages wait for each other, so that a steady flow
// does not keep the first ones back.
const together = 256

// sendAll writes until there is nothing more to come, or the client takes no more.
func (t *stream) sendAll() error {
	beat := time.NewTicker(t.s.options.PingTime)
	defer beat.Stop()
	var buf []byte // of one message; kept from one to the next
	for {
		var err error
		select {
		case o := <-t.answers:
			buf, err = t.sendOutcome(buf, &o)
		case text := <-t.notices:
			err = t.k.send(text)
		case b := <-t.batches:
			buf, err = b.send(t.k, buf)
		case <-beat.C:
			err = t.k.beat()
		case <-t.last:
			return t.sendRest(buf)
		}
		// What else is there leaves in the same packet, up to a point.
		more := true
		for n := 0; n < together && more && err == nil; n++ {
			select {
			case o := <-t.answers:
				buf, err = t.sendOutcome(buf, &o)
			case text := <-t.notices:
				err = t.k.send(text)
			case b := <-t.batches:
				buf, err = b.send(t.k, buf)
			default:
				more = false
			}
		}
		if err == nil {
			err = t.k.flush()
		}
		if err != nil {
			return err
		}
		if cap(buf) > 4*maxCork {
			buf = nil // one large message is no reason to keep its memory
		}
	}
}

// sendRest writes what is there, when nobody gives anything more.
func (t *stream) sendRest(buf []byte) error {
	for {
		var err error
		select {
		case o := <-t.answers:
			buf, err = t.sendOutcome(buf, &o)
		case text := <-t.notices:
			err = t.k.send(text)
		default:
			return nil // the farewell flushes
		}
		if err != nil {
			return err
		}
	}
}

func (t *stream) sendOutcome(buf []byte, o *outcome) ([]byte, error) {
	buf = buf[:0]
	switch {
	case o.err != nil:
		p := t.s.problem(o.err, t.id)
		p.CommandID = o.command
		buf = api.AppendProblem(buf, api.OpError, o.id, &p)
	case o.query != nil:
		buf = api.AppendQueryAnswer(buf, o.id, o.query)
	default:
		buf = api.AppendCommandReply(buf, o.id, &o.reply, t.s.backend.Cursor(o.reply.Service, o.reply.Position))
	}
	err := t.k.send(buf)
	<-t.slots
	return buf, err
}

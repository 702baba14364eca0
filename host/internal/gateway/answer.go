package gateway

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/ws"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// answer is an http.ResponseWriter that records what was answered.
type answer struct {
	http.ResponseWriter
	server    *Server
	control   *http.ResponseController
	writeTime time.Duration
	left      flight.Allowance // the client's time to take what is written
	id        string           // of the request
	about     []any            // attributes for log lines about it
	flight    *flight.Account
	held      int  // bytes taken from flight
	status    int  // 0: none yet
	stream    bool // it became a stream, whose duration is not counted
	pacer     flight.Pacer

	params   url.Values // of the request; only those of its operation
	bodyType string     // media type of its body, without parameters; empty if none was given
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter. It writes in pieces, which shows whether the client still takes any.
func (a *answer) Write(b []byte) (written int, err error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.left == (flight.Allowance{}) {
		a.LimitWrite()
	}
	defer a.flight.HasWritten()
	for {
		a.flight.Writes()
		a.pacer.Pass(&a.left)
		a.setDeadline()
		n, err := a.ResponseWriter.Write(b[:min(len(b), flight.PieceBytes)])
		a.left.Earn(n)
		written, b = written+n, b[n:]
		if err != nil || len(b) == 0 {
			return written, err
		}
	}
}

// FlushError sends what was written. It is the Flush of an http.ResponseController.
func (a *answer) FlushError() error {
	a.flight.Writes()
	defer a.flight.HasWritten()
	return a.control.Flush()
}

// Flight implements streams.Answer.
func (a *answer) Flight() *flight.Account { return a.flight }

// Take takes bytes, which the answer holds until it gives them back or ends.
func (a *answer) Take(n int) error {
	err := a.flight.Take(n)
	if err == nil {
		a.held += n
	}
	return err
}

// give gives bytes back.
func (a *answer) give(n int) {
	a.held -= n
	a.flight.Give(n)
}

// hold takes a buffer that will replace everything that is held.
func (a *answer) hold(capacity int64) (copied func(), err error) {
	had := a.held
	if err := a.Take(int(capacity)); err != nil {
		return nil, err
	}
	return func() { a.give(had) }, nil
}

// carry transfers what is held to a command or query.
func (a *answer) carry() (*flight.Carriage, error) {
	c, err := a.flight.Carry(a.held, flight.CallBytes)
	if err == nil {
		a.held = 0
	}
	return c, err
}

// end gives back what is left.
func (a *answer) end() {
	a.pacer.End()
	a.give(a.held)
}

// Unwrap gives http.ResponseController access to the underlying writer.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack implements http.Hijacker, for WebSockets.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := a.control.Hijack()
	if err == nil {
		a.status, a.stream = http.StatusSwitchingProtocols, true
	}
	return conn, rw, err
}

// LimitWrite gives the client writeTime for what is written next, and more only as it takes some of that.
func (a *answer) LimitWrite() {
	a.left = flight.NewAllowance(a.writeTime)
	a.setDeadline()
}

// setDeadline bounds the next write. A connection that does not support deadlines ends with its client.
func (a *answer) setDeadline() { _ = a.control.SetWriteDeadline(a.left.Until()) }

// send answers with a body. Write errors mean that the client has gone, and are ignored.
func (a *answer) send(status int, contentType string, body []byte) {
	a.sendTexts(status, contentType, api.Text(body))
}

// sendTexts answers with a body of several texts.
func (a *answer) sendTexts(status int, contentType string, body ...api.Pieces) {
	size := 0
	for i := range body {
		size += body[i].Len()
	}
	h := a.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(size))
	a.LimitWrite()
	a.WriteHeader(status)
	var out io.Writer = a
	// A system call for each event of a page would cost more than the page.
	if n := min(size, ws.MaxGathered); len(body) > fewTexts && a.flight.Spare(n) {
		a.held += n
		together := bufio.NewWriterSize(a, n)
		defer together.Flush()
		out = together
	}
	for i := range body {
		if writeText(out, &body[i]) != nil {
			return
		}
	}
}

// fewTexts are not worth gathering.
const fewTexts = 4

func writeText(to io.Writer, text *api.Pieces) error {
	return text.Each(func(piece []byte) error {
		_, err := to.Write(piece)
		return err
	})
}

// sendList answers with a list of n values of package api, which can always be encoded. It encodes one after
// the other, so it takes no more memory than the longest line. begin and end enclose the list.
func (a *answer) sendList(begin, end string, n int, value func(i int) any) error {
	a.Header().Set("Content-Type", api.ContentJSON)
	out := bufio.NewWriterSize(pieces{a}, statusRoom)
	_, _ = out.WriteString(begin) // a later write returns the same error
	for i := range n {
		text, err := json.Marshal(value(i))
		if err != nil {
			return service.Errorf(service.KindInternal, "answer: %w", err)
		}
		if i > 0 {
			_ = out.WriteByte(',')
		}
		if _, err := out.Write(text); err != nil {
			return nil // the client is gone
		}
	}
	_, _ = out.WriteString(end + "\n")
	_ = out.Flush()
	return nil
}

// json answers with a value of package api, which can always be encoded. It is for values that are always
// small.
func (a *answer) json(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return service.Errorf(service.KindInternal, "answer: %w", err)
	}
	if err := a.Take(cap(body)); err != nil {
		return err
	}
	a.send(status, api.ContentJSON, append(body, '\n'))
	return nil
}

// commandError is an error with the id of the command, which the client may need for a repetition.
type commandError struct {
	err error
	id  service.CommandID
}

func (e *commandError) Error() string { return e.err.Error() }
func (e *commandError) Unwrap() error { return e.err }

// Problem is the part of err that the client may see. The rest goes to the log. It is safe for concurrent
// use.
func (a *answer) Problem(err error) api.Problem { return a.server.problem(err, a.id, a.about...) }

// problem is the part of an error that a client may see. The rest goes to the log, with the attributes of the
// request.
func (s *Server) problem(err error, id string, about ...any) api.Problem {
	p := api.ProblemOf(err, id)
	var command *commandError
	if errors.As(err, &command) {
		p.CommandID = command.id
	}
	if p.RetryAfterMS == 0 && (p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable) {
		p.RetryAfterMS = flight.RetrySoon.Milliseconds()
	}
	s.logProblem(&p, err, id, about)
	return p
}

// fail answers with a problem. If an answer has already begun, it breaks the connection, so that the answer
// is not taken for complete.
func (s *Server) fail(a *answer, err error) {
	p := a.Problem(err)
	if a.status != 0 {
		panic(http.ErrAbortHandler)
	}
	h := a.Header()
	if p.RetryAfterMS > 0 {
		h.Set("Retry-After", strconv.FormatInt((p.RetryAfterMS+999)/1000, 10))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	body, _ := json.Marshal(p) // a problem can always be encoded
	if a.Take(len(body)) != nil {
		p.Reasons = nil // the only part that can be large
		body, _ = json.Marshal(p)
	}
	a.send(p.Status, api.ContentProblem, append(body, '\n'))
}

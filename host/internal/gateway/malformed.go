package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// net/http itself answers requests that it cannot read, in plain text on the bare connection, which it then
// closes. Such an answer begins with a status line and these headers; the handlers' answers have others.
var plainHeaders = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// maxPlain is the maximum size of such an answer, in bytes.
const maxPlain = 512

// expectation begins net/http's answer to an unknown Expect. No handler answers like this.
var expectation = []byte(" 417 Expectation Failed\r\n")

// malformed converts net/http's own answer to a request into an error and a status; nil if b is not such an
// answer.
func malformed(b []byte) (why *service.Error, status int) {
	line, text, ok := bytes.Cut(b[:min(len(b), maxPlain)], plainHeaders)
	line, is11 := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if len(b) < maxPlain && len(b) > len("HTTP/1.1") && bytes.HasPrefix(b, []byte("HTTP/1.")) &&
		bytes.HasPrefix(b[len("HTTP/1.1"):], expectation) {
		return service.Errorf(service.KindUnsupported, "the header Expect may be 100-continue only"),
			http.StatusExpectationFailed
	}
	if !ok || !is11 || len(b) >= maxPlain || len(line) < 3 {
		return nil, 0
	}
	status, err := strconv.Atoi(string(line[:3]))
	if err != nil || status < 400 || status > 599 || !bytes.Equal(line, text) && status != http.StatusNotImplemented {
		return nil, 0
	}
	return meant(status, line), status
}

// meant describes what net/http means by a status. The status line may say more.
func meant(status int, line []byte) *service.Error {
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		return service.Errorf(service.KindTooLarge, "the request's line and headers are larger than %d bytes",
			maxHeader)
	case http.StatusBadRequest:
		if _, why, ok := bytes.Cut(line, []byte(": ")); ok {
			return service.Errorf(service.KindInvalid, "the request cannot be read: %.200q", why)
		}
		return service.Errorf(service.KindInvalid, "the request cannot be read: its line or a header is malformed")
	}
	return service.Errorf(service.KindUnsupported, "the request cannot be read: %s", http.StatusText(status))
}

// rewrite replaces what net/http says to client itself by a problem; nil if b is something else. The listener asks
// for it of requests on which no handler is at work.
func (s *Server) rewrite(b []byte, client string) []byte {
	if len(b) >= maxPlain {
		return nil
	}
	why, status := malformed(b)
	if why == nil {
		return nil
	}
	return problemAnswer(s.unreadable(why, status, client))
}

// fullAnswer is the answer to a refused connection.
func fullAnswer(full error) []byte {
	return problemAnswer(api.ProblemOf(full, ""), "Retry-After: 1")
}

// unreadable makes a problem from what net/http has refused, counts it and logs it.
func (s *Server) unreadable(why *service.Error, status int, client string) api.Problem {
	id := s.requestID()
	p := api.ProblemOf(why, id)
	p.Status = status
	s.metrics.Request(elsewhere, status, 0)
	s.logProblem(&p, why, id, []any{"client", client})
	return p
}

// problemAnswer is a complete answer, after which the connection is closed.
func problemAnswer(p api.Problem, headers ...string) []byte {
	text, _ := json.Marshal(p) // a problem can always be encoded
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n", p.Status, http.StatusText(p.Status),
		api.ContentProblem)
	for _, h := range headers {
		b = append(append(b, h...), "\r\n"...)
	}
	return fmt.Appendf(b, "Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
}

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

// What net/http cannot read it answers itself, in plain text and on the bare connection, and
// then closes that. Such an answer begins with a status line and these headers; the handlers'
// have others.
var plainHeaders = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// maxPlain bounds such an answer, in bytes.
const maxPlain = 512

// malformed makes problem details of net/http's own answer to a request; nil if b is none.
func malformed(b []byte) []byte {
	line, text, ok := bytes.Cut(b[:min(len(b), maxPlain)], plainHeaders)
	line, is11 := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !ok || !is11 || len(b) >= maxPlain || len(line) < 3 {
		return nil
	}
	status, err := strconv.Atoi(string(line[:3]))
	if err != nil || status < 400 || status > 599 || !bytes.Equal(line, text) && status != http.StatusNotImplemented {
		return nil
	}
	return problemAnswer(problemOfUnread(status, line))
}

// problemOfUnread says what net/http means by a status, whose line may say more.
func problemOfUnread(status int, line []byte) api.Problem {
	e := service.Errorf(service.KindUnsupported, "the request cannot be read: %s", http.StatusText(status))
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		e = service.Errorf(service.KindTooLarge, "the request's line and headers are larger than %d bytes", maxHeader)
	case http.StatusBadRequest:
		e = service.Errorf(service.KindInvalid, "the request cannot be read: its line or a header is malformed")
		if _, why, ok := bytes.Cut(line, []byte(": ")); ok {
			e = service.Errorf(service.KindInvalid, "the request cannot be read: %.200q", why)
		}
	}
	p := api.ProblemOf(e, "")
	p.Status = status
	return p
}

// problemAnswer is a whole answer, after which the connection is closed.
func problemAnswer(p api.Problem, headers ...string) []byte {
	text, _ := json.Marshal(p) // a problem always encodes
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n", p.Status, http.StatusText(p.Status), api.ContentProblem)
	for _, h := range headers {
		b = append(append(b, h...), "\r\n"...)
	}
	return fmt.Appendf(b, "Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
}

// Write implements net.Conn. Of a request that has come in part, and that no handler is at work
// on, only net/http can be the author of an answer.
func (g *guestConn) Write(b []byte) (int, error) {
	if len(b) < maxPlain && g.flight.unread.Load() > 0 {
		if p := malformed(b); p != nil {
			if _, err := g.Conn.Write(p); err != nil {
				return 0, err
			}
			return len(b), nil
		}
	}
	return g.Conn.Write(b)
}

package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
)

// statuses are the answers that a server has counted, by route.
type statuses struct {
	noMetrics
	mu  sync.Mutex
	all map[string]int
}

func (c *statuses) Request(route string, status int, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[fmt.Sprint(route, " ", status)]++
}

func (c *statuses) count(route string, status int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[fmt.Sprint(route, " ", status)]
}

// What net/http itself refuses becomes a problem like all others, and is counted and logged. This test fails
// if net/http changes its texts.
func TestWhatCannotBeReadIsAProblem(t *testing.T) {
	counts := &statuses{all: map[string]int{}}
	s := start(t, Options{Metrics: counts})
	const host = "Host: localhost\r\n\r\n"
	for request, want := range map[string]struct {
		status int
		kind   string
	}{
		"GET /v1/services/a%zz HTTP/1.1\r\n" + host:               {400, "invalid"},
		"GET /v1/services HTTP/1.1\r\n\r\n":                       {400, "invalid"},
		"GET /v1/services HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": {400, "invalid"},
		"GET /v1/services HTTP/1.1\r\nA b: c\r\n" + host:          {400, "invalid"},
		"GET /v1/services HTTP/1.1\r\nExpect: much\r\n" + host:    {417, "unsupported"},
		"GET /v1/services HTTP/1.0\r\nExpect: much\r\n" + host:    {417, "unsupported"},
		"GARBAGE\r\n\r\n":                      {400, "invalid"},
		"GET /v1/services HTTP/4.0\r\n" + host: {505, "unsupported"},
		"POST /v1/services HTTP/1.1\r\nTransfer-Encoding: zip\r\n" + host:                         {501, "unsupported"},
		"GET /v1/services HTTP/1.1\r\nA: " + strings.Repeat("a", maxHeader+8<<10) + "\r\n" + host: {431, "too_large"},
	} {
		a := s.attacker()
		before, lines := counts.count(elsewhere, want.status), len(s.told(`"request refused"`))
		a.put(request)
		resp, err := http.ReadResponse(a.r, nil)
		if err != nil {
			t.Errorf("%.40q: %v", request, err)
			continue
		}
		text, err := io.ReadAll(resp.Body)
		var p api.Problem
		if err != nil || json.Unmarshal(text, &p) != nil || resp.StatusCode != want.status || p.Status != want.status ||
			p.Kind != want.kind ||
			resp.Header.Get("Content-Type") != api.ContentProblem || !resp.Close {
			t.Errorf("%.40q: %d %v %s %v", request, resp.StatusCode, resp.Header, text, err)
		}
		if n := counts.count(elsewhere, want.status); n != before+1 {
			t.Errorf("%.40q: %d were counted, and %d before", request, n, before)
		}
		told := s.told(`"request refused"`)
		if id := strings.TrimPrefix(p.Instance, "urn:bulkhead:request:"); len(told) != lines+1 || id == "" ||
			!strings.Contains(told[lines], "request="+id+" status="+strconv.Itoa(want.status)) ||
			!strings.Contains(told[lines], "client=127.0.0.1:") {
			t.Errorf("%.40q: told of %s: %q", request, p.Instance, told[lines:])
		}
		if n, _ := io.Copy(io.Discard, a.r); n > 0 { // an error is the reset because of unread data
			t.Errorf("%.40q: %d bytes follow", request, n)
		}
	}
}

// A service's answer is not mistaken for net/http's.
func TestAnswersAreNotTakenForRefusals(t *testing.T) {
	plain := "HTTP/1.1 400 Bad Request" + string(plainHeaders) + "400 Bad Request"
	if why, _ := malformed([]byte(plain)); why == nil {
		t.Fatal("the library's own words are not known")
	}
	for _, other := range []string{
		plain + " ", plain[1:], plain[:len(plain)-1], strings.Replace(plain, "400", "200", 1),
		strings.Replace(plain, "400", "4x0", 2), "HTTP/1.1 40" + string(plainHeaders),
		"HTTP/1.1 400 Bad Request\r\nBulkhead-Request-Id: 1\r\n\r\n", "", strings.Repeat("x", maxPlain),
		plain + strings.Repeat("x", maxPlain),
	} {
		if why, _ := malformed([]byte(other)); why != nil {
			t.Errorf("%q becomes %v", other, why)
		}
	}
	s := start(t, Options{})
	a := s.attacker()
	// A body with such a text is sent unchanged, during and after the work of a handler.
	s.fake.mu.Lock()
	s.fake.services["blob"].append("k", "", 1, `"`+strings.Repeat("x", 5000)+`"`)
	s.fake.mu.Unlock()
	for range 2 {
		a.put("GET /v1/services/blob/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
		resp, err := http.ReadResponse(a.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 || !bytes.Contains(text, []byte("xxxx")) {
			t.Errorf("%d %.80q %v", resp.StatusCode, text, err)
		}
	}
}

func FuzzMalformed(f *testing.F) {
	f.Add([]byte("HTTP/1.1 400 Bad Request: a" + string(plainHeaders) + "400 Bad Request: a"))
	f.Add([]byte("HTTP/1.1 501 Not Implemented" + string(plainHeaders) + "Unsupported transfer encoding"))
	f.Add([]byte("HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 "))
	f.Fuzz(func(t *testing.T, b []byte) {
		if why, status := malformed(b); why != nil {
			problem := api.ProblemOf(why, "1")
			problem.Status = status
			p := problemAnswer(problem)
			if _, body, ok := bytes.Cut(p, []byte("\r\n\r\n")); !ok || !json.Valid(body) {
				t.Fatalf("%q becomes %q", b, p)
			}
		}
	})
}

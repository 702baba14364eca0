package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// A compressed body is refused by name, for every operation; one that says that it is not compressed is
// accepted.
func TestPackedBodies(t *testing.T) {
	s := start(t, Options{})
	for _, encoding := range []string{"gzip", "br", "identity, gzip", "x\u202e"} {
		g := s.do("POST", commands+"add", `{"n":1}`, "Content-Encoding", encoding)
		s.problem(g, 415, "unsupported")
		if g.header.Get("Accept-Encoding") != "identity" {
			t.Errorf("%s: %v", encoding, g.header)
		}
		s.problem(s.do("POST", "/v1/modules", "no module", "Content-Encoding", encoding), 415, "unsupported")
	}
	if n := len(s.fake.seen); n != 0 {
		t.Errorf("%d commands came through", n)
	}
	for _, encoding := range []string{"identity", "Identity", ""} {
		if g := s.do("POST", commands+"add", `{"n":1}`, "Content-Encoding", encoding); g.status != 200 {
			t.Errorf("%q: %d", encoding, g.status)
		}
	}
}

// If a request has both a length and chunked encoding, nothing after it is taken for another request.
func TestNothingIsSmuggledBehindChunks(t *testing.T) {
	s := start(t, Options{})
	a := s.attacker()
	a.put("POST " + commands + "add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: " +
		"chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n" +
		"POST " + commands + "smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1")
	resp, err := http.ReadResponse(a.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || !resp.Close {
		t.Errorf("the answer is %d, and the connection stays: %v", resp.StatusCode, !resp.Close)
	}
	if rest, err := io.ReadAll(a.r); err != nil && !strings.Contains(err.Error(), "reset") || len(rest) > 0 {
		t.Errorf("then came %.200q, %v", rest, err)
	}
	for _, c := range s.fake.seen {
		if c.Type != "add" {
			t.Errorf("the command %s came through", c.Type)
		}
	}
}

// A link from another site may lead to the host's own answers, but runs no guest.
func TestLinksOfOtherSitesRunNoGuest(t *testing.T) {
	s := start(t, Options{})
	const query = "/v1/services/bank/entities/alice/queries/look"
	follow := func(path, site string) got {
		return s.do("GET", path, "", "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	}
	for _, site := range []string{"cross-site", "same-site"} {
		s.problem(follow(query, site), 403, "unauthorized")
	}
	for _, site := range []string{"none", "same-origin", ""} { // typed in, or a page of the host
		if g := follow(query, site); g.status != 200 {
			t.Errorf("%q: %d %s", site, g.status, g.body)
		}
	}
}

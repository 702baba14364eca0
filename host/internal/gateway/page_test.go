package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
)

// batch requests a batch of CloudEvents, and reads it with the official SDK. next is the URL of its link,
// empty if there is none.
func (s *site) batch(from string, headers ...string) (events []cloudevents.Event, next string, g got) {
	s.Helper()
	g = s.do("GET", from, "", append(headers, "Accept", api.ContentBatch)...)
	if g.status != http.StatusOK || g.header.Get("Content-Type") != api.ContentBatch {
		s.Fatalf("%s: %d %v", from, g.status, g.header)
	}
	if err := json.Unmarshal(g.body, &events); err != nil || events == nil {
		s.Fatalf("%v in %s", err, g.body)
	}
	for _, e := range events {
		if err := e.Validate(); err != nil {
			s.Error(err)
		}
	}
	if link := g.header.Get("Link"); link != "" {
		target, ok := strings.CutSuffix(link, `>; rel="next"`)
		base, err := url.Parse(from)
		if err != nil || !ok || target[0] != '<' || strings.ContainsAny(target[1:], `<> "`) {
			s.Fatalf("the link is %s, %v", link, err)
		}
		relative, err := url.Parse(target[1:])
		if err != nil {
			s.Fatal(err)
		}
		next = base.ResolveReference(relative).String()
	}
	return events, next, g
}

// A batch has the content of a page, and says in headers how to continue.
func TestBatches(t *testing.T) {
	s := start(t, Options{})
	for i := range 30 {
		key := []string{"a,b", "ü<>", "c"}[i%3]
		s.do("POST", "/v1/services/bank/entities/"+url.PathEscape(key)+"/commands/"+[]string{"add", "other"}[i/15], "")
	}
	for query, want := range map[string]int{
		"/v1/services/bank/events":                                                  30,
		"/v1/services/bank/events?limit=7":                                          30,
		"/v1/services/bank/events?fro%6d=11&limit=7":                                20,
		"/v1/services/bank/events?keys=a%2Cb,c&types=Other&limit=2&from=end":        0,
		"/v1/services/bank/events?limit=2&from=start&keys=a%2Cb,c&types=Other":      10,
		"/v1/services/bank/events?keys=%C3%BC%3C%3E&limit=3&types=Other,Added":      10,
		"/v1/services/bank/events?keys=ü<>&limit=4&&types=Other&types=Added":        10,
		"/v1/services/bank/events?keys=none&limit=1":                                0,
		"/v1/services/bank/entities/a%2Cb/events?limit=3":                           10,
		"/v1/services/bank/entities/a%2Cb/events?after=4&limit=3":                   6,
		"/v1/services/bank/entities/a%2Cb/events?limit=3&after=":                    10,
		"/v1/services/bank/entities/nobody/events":                                  0,
		"/v1/services/bank/entities/c/events?after=" + cursorOf("bank", 15):         5,
		"/v1/services/bank/entities/c/events?limit=5&after=10":                      0,
		"/v1/services/bank/entities/c/events?limit=4&after=" + url.QueryEscape("0"): 10,
	} {
		var got int
		for at := query; at != ""; {
			page := s.do("GET", at, "")
			var p api.Page
			if err := json.Unmarshal(page.body, &p); err != nil {
				t.Fatalf("%v in %s", err, page.body)
			}
			events, next, g := s.batch(at)
			if len(events) != len(p.Events) || p.More != (next != "") || g.header.Get(api.HeaderNext) != p.Next ||
				page.header.Get("Link")+page.header.Get(api.HeaderNext) != "" {
				t.Fatalf("%s: %d events of %d, %v, the page goes on at %s", at, len(events), len(p.Events), g.header,
					p.Next)
			}
			for i, e := range events {
				native, err := api.DecodeEvent(p.Events[i])
				if err != nil || e.ID() != native.ID || e.Subject() != string(native.Subject) ||
					e.Extensions()["position"] != fmt.Sprint(native.Position) {
					t.Errorf("%s, %v, in the page %s", e, err, p.Events[i])
				}
			}
			got += len(events)
			at = next
		}
		if got != want {
			t.Errorf("%s brings %d events, want %d", query, got, want)
		}
	}
	const path = "/v1/services/bank/events?limit=1"
	if g := s.do("HEAD", path, "", "Accept", api.ContentBatch); g.status != 200 ||
		g.header.Get("Content-Type") != api.ContentBatch || g.header.Get("Link") == "" || len(g.body) != 0 {
		t.Errorf("HEAD: %d %v", g.status, g.header)
	}
	for _, other := range []string{"application/cloudevents+json", "application/cloudevents-batch+json;q=0",
		"application/xml"} {
		s.problem(s.do("GET", path, "", "Accept", other), http.StatusNotAcceptable, "unsupported")
	}
	s.problem(s.do("GET", "/v1/services/none/events", "", "Accept", api.ContentBatch), 404, "not_found")
	s.problem(s.do("GET", "/v1/services/bank/events?from=x", "", "Accept", api.ContentBatch), 400, "bad_cursor")
}

// Whatever a query contains, the link fits into a header, and leads to the same query at another place.
func FuzzNextLink(f *testing.F) {
	f.Add("keys=a%2Cb,c&from=7&limit=3", "c-1")
	f.Add("fro%6d=1&\"<>\\^`{|}\x7f&ü=ü&&a;b", "x&y")
	f.Add("keys=%zz&%=1", "")
	f.Fuzz(func(t *testing.T, query, next string) {
		link := nextLink(query, "from", next)
		target, ok := strings.CutSuffix(link, `>; rel="next"`)
		if !ok || !strings.HasPrefix(target, "<?") || strings.ContainsFunc(target[1:], func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`<>"`, r) }) {
			t.Fatalf("%q", link)
		}
		want, err := url.ParseQuery(query)
		if err != nil {
			return // the gate refuses it
		}
		want.Set("from", next)
		got, err := url.ParseQuery(target[2:])
		if err != nil || got.Encode() != want.Encode() {
			t.Errorf("%q leads to %q, %v", query, link, err)
		}
		types, _ := listParam(query, "types")
		again, err := listParam(target[2:], "types")
		if err != nil || strings.Join(types, "\x00") != strings.Join(again, "\x00") {
			t.Errorf("%q became %q, %v", types, again, err)
		}
	})
}

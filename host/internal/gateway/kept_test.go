package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Kept events are in the pages of their entity, with the ids that they had, and the next page can be
// requested by these ids. The log begins after them, and so do streams: only a stream that would need one of
// them is refused.
func TestPagesOfKeptEvents(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t, func(o *host.Options) { o.Journal.AnswerWindow = 1 })
	m := testguest.CounterManifest("count")
	h.MustDeploy("count", testguest.CounterOf(m.AppendJSON(nil), testguest.Weaknesses{NaNAt: 4}, nil))
	var ids []string
	for i := range 4 {
		if i == 3 { // another event separates deleted ones from those that stay
			other := add("other")
			other.Key = "c"
			h.MustSend(other)
		}
		ids = append(ids, h.MustSend(add(fmt.Sprint(i))).Cursor.String())
	}
	s, c := serve(t, h.Host, "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if done, err := c.Retain(ctx, "count", service.Retention{Before: 5, MaxKept: -1}); service.KindOf(
		err) != service.KindConflicting {
		t.Errorf("without room for any: %+v, %v", done, err)
	}
	negative, err := http.Post(s.URL()+"/v1/services/count/retention", api.ContentJSON, strings.NewReader(`{"before":5,"max_kept_bytes":-1}`))
	if err != nil {
		t.Fatal(err)
	}
	defer negative.Body.Close()
	if negative.StatusCode != http.StatusBadRequest {
		t.Errorf("a negative size: %s", negative.Status)
	}
	if done, err := c.Retain(ctx, "count", service.Retention{Before: 5, MaxKept: 1 << 20}); err != nil ||
		done.First != 5 || done.KeptEvents != 3 || !slices.Equal(done.KeptOf, []string{"a/b"}) {
		t.Fatalf("%+v, %v", done, err)
	}
	for _, limit := range []int{1, 2, 3, 10} {
		var got []string
		after := ""
		for more := true; more; {
			p, err := c.EntityEvents(ctx, "count", "a/b", after, limit)
			if err != nil || p.First != 1 {
				t.Fatalf("after %q: %+v, %v", after, p, err)
			}
			for _, e := range p.Events {
				if e.Version != service.Version(len(got)+1) || e.Position != []service.Position{1, 2, 3, 5}[len(got)] {
					t.Errorf("%+v", e)
				}
				got = append(got, e.ID)
			}
			after, more = p.Next, p.More
		}
		if !slices.Equal(got, ids) {
			t.Errorf("pages of %d have %v, not %v", limit, got, ids)
		}
	}
	if _, err := c.EntityEvents(ctx, "count", "other", ids[1], 1); service.KindOf(err) != service.KindBadCursor {
		t.Errorf("another entity after a kept event: %v", err)
	}
	if _, err := c.Events(ctx, service.Selection{Service: "count", From: service.AfterCursor(ids[1])},
		1); service.KindOf(err) != service.KindBadCursor {
		t.Errorf("the log after a kept event: %v", err)
	}
	for after, refused := range map[string]bool{"": false, "0": false, "1": true, "2": true, "3": false, ids[1]: true,
		ids[2]: false} {
		for _, last := range []bool{false, true} {
			path := s.URL() + "/v1/services/count/entities/a%2Fb/events"
			if last && len(after) < 2 {
				continue // it accepts only ids
			} else if !last {
				path += "?after=" + after
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", api.ContentSSE)
			if last {
				req.Header.Set(api.HeaderLastEventID, after)
			}
			at, err := firstSSE(req)
			if refused && service.KindOf(err) != service.KindBadCursor || !refused && (err != nil || at != 5) {
				t.Errorf("the stream after %q begins at %d, %v", after, at, err)
			}
		}
	}
}

package gateway_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
)

// doors are all ways to begin after a cursor. Each returns the position of the first event after it, or the
// error.
func doors(t *testing.T, h *hosttest.Host) map[string]func(cursor string) (service.Position, error) {
	t.Helper()
	s, c := serve(t, h.Host, "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // after a wrong place there may be no event
	t.Cleanup(cancel)
	st, err := c.Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() }) // always nil
	embedded := func(c service.Cursor, err error) (service.Position, error) {
		if err != nil {
			return 0, err
		}
		page, err := h.Events(ctx, service.Selection{Service: "count", From: service.AfterPosition(c.Position)}, 1)
		if err != nil || len(page.Events) == 0 {
			return 0, fmt.Errorf("%d events, %w", len(page.Events), err)
		}
		return page.Events[0].Position, nil
	}
	follow := func(path string) func(string) (service.Position, error) {
		return func(cursor string) (at service.Position, err error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+path, nil)
			if err != nil {
				return 0, err
			}
			req.Header.Set("Accept", api.ContentSSE)
			req.Header.Set(api.HeaderLastEventID, cursor)
			return firstSSE(req)
		}
	}
	return map[string]func(cursor string) (service.Position, error){
		"page": func(cursor string) (service.Position, error) {
			p, err := c.Events(ctx, service.Selection{Service: "count", From: service.AfterCursor(cursor)}, 1)
			return firstOf(p.Events, err)
		},
		"page of an entity": func(cursor string) (service.Position, error) {
			p, err := c.EntityEvents(ctx, "count", "a/b", cursor, 1)
			return firstOf(p.Events, err)
		},
		"Last-Event-ID":              follow("/v1/services/count/events"),
		"Last-Event-ID of an entity": follow("/v1/services/count/entities/a%2Fb/events"),
		"followed": func(cursor string) (at service.Position, err error) {
			enough := fmt.Errorf("enough")
			err = c.Follow(ctx, service.Selection{Service: "count", From: service.AfterCursor(cursor)},
				func(e client.Event) error {
					at = e.Position
					return enough
				})
			if err == enough {
				err = nil
			}
			return at, err
		},
		"subscription": func(cursor string) (service.Position, error) {
			sub, err := st.Subscribe(ctx, service.Selection{Service: "count", From: service.AfterCursor(cursor)}, 1)
			if err != nil {
				return 0, err
			}
			e, err := sub.Next(ctx)
			if closed := sub.Close(ctx); closed != nil {
				t.Error(closed)
			}
			return e.Position, err
		},
		"WebSocket of CloudEvents": func(cursor string) (service.Position, error) {
			d := websocket.Dialer{Subprotocols: []string{api.ProtocolCloudEvents}}
			path := "/v1/services/count/events?from=" + url.QueryEscape(cursor)
			ws, resp, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(s.URL(), "http")+path, nil)
			if err != nil {
				if resp != nil && resp.StatusCode == http.StatusBadRequest {
					err = service.Errorf(service.KindBadCursor, "status 400")
				}
				return 0, err
			}
			defer ws.Close()
			_, text, err := ws.ReadMessage()
			if err != nil {
				return 0, err
			}
			e, err := api.DecodeCloudEvent(text)
			return e.Position, err
		},
		"embedded": func(cursor string) (service.Position, error) {
			return embedded(h.ParseCursor(ctx, "count", cursor))
		},
		"embedded, of a place": func(cursor string) (service.Position, error) {
			from, err := service.ParseFrom(cursor)
			if err != nil {
				return 0, err
			}
			return embedded(h.Place(ctx, "count", from))
		},
	}
}

// firstOf is the position of the first event of a page.
func firstOf(events []client.Event, err error) (service.Position, error) {
	if err != nil {
		return 0, err
	}
	if len(events) == 0 {
		return 0, fmt.Errorf("there is no event")
	}
	return events[0].Position, nil
}

// firstSSE is the position of the first event of a stream of server-sent events.
func firstSSE(req *http.Request) (service.Position, error) {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	resp, err := http.DefaultTransport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusBadRequest {
		text := make([]byte, 1<<10)
		n, _ := resp.Body.Read(text)
		if !strings.Contains(string(text[:n]), `"kind":"bad_cursor"`) {
			return 0, fmt.Errorf("refused with %s", text[:n])
		}
		return 0, service.Errorf(service.KindBadCursor, "status 400")
	}
	var got strings.Builder
	for text := make([]byte, 1<<10); ; {
		n, err := resp.Body.Read(text)
		got.Write(text[:n])
		if _, data, ok := strings.Cut(got.String(), "data: "); ok && strings.Contains(data, "\n") {
			line, _, _ := strings.Cut(data, "\n")
			e, err := api.DecodeCloudEvent([]byte(line))
			return e.Position, err
		}
		if err != nil {
			return 0, err
		}
	}
}

// restored is a host on a restored backup of another one.
func restored(t *testing.T, h *hosttest.Host, file string) *hosttest.Host {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := host.RestoreDir(t.Context(), dir, []string{file}, host.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	return hosttest.New(t, func(o *host.Options) { o.Dir = dir })
}

func backedUp(t *testing.T, h *hosttest.Host) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "backup")
	if err := backup.Create(name, func(f *os.File) error {
		_, err := h.Backup(t.Context(), f, service.BackupOptions{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return name
}

// Every interface accepts a cursor exactly where its event is: in each copy that has lost nothing, but not in
// another history, on another host, or beyond the end.
func TestACursorBelongsToOneHistory(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("count", testguest.Counter("count"))
	empty, err := h.Cursor(t.Context(), "count", 0)
	if err != nil {
		t.Fatal(err)
	}
	cursors := []service.Cursor{empty} // that of position p is at index p
	sources := map[string]string{}     // the history of each id
	send := func(h *hosttest.Host, who string, from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			r := h.MustSend(add(fmt.Sprint(who, i)))
			again := h.MustSend(add(fmt.Sprint(who, i)))
			if r.Cursor.Position != r.Position || again.Cursor != r.Cursor || !again.Repeated {
				t.Fatalf("the reply %+v is repeated as %+v", r, again)
			}
			if other, taken := sources[r.Cursor.String()]; taken {
				t.Errorf("event %d of %s has the id of an event of %s", i, who, other)
			}
			sources[r.Cursor.String()] = who
			if who == "h" {
				cursors = append(cursors, r.Cursor)
			}
		}
	}
	send(h, "h", 1, 3)
	part := backedUp(t, h)
	send(h, "h", 4, 6)
	whole := backedUp(t, h)
	send(h, "h", 7, 7) // so that there is an event after each cursor below

	// A gateway is stopped before the next step.
	type judge = func(c service.Cursor, at service.Position, err error) bool
	each := func(what string, h *hosttest.Host, cursors []service.Cursor, wrong judge) {
		t.Run(what, func(t *testing.T) {
			for door, open := range doors(t, h) {
				for _, c := range cursors {
					if at, err := open(c.String()); wrong(c, at, err) {
						t.Errorf("%s: the cursor of %d leads to %d: %v", door, c.Position, at, err)
					}
				}
			}
		})
	}
	taken := func(what string, h *hosttest.Host, c ...service.Cursor) {
		each(what, h, c, func(c service.Cursor, at service.Position, err error) bool {
			return err != nil || at != c.Position+1
		})
	}
	refused := func(what string, h *hosttest.Host, c ...service.Cursor) {
		each(what, h, c, func(_ service.Cursor, _ service.Position, err error) bool {
			return service.KindOf(err) != service.KindBadCursor
		})
	}
	taken("where it was given out", h, cursors[:7]...)
	beyond := cursors[7]
	beyond.Position = 99
	forged := cursors[5]
	forged.Stamp[7]++
	refused("where it was given out", h, beyond, forged)
	h.Restart()
	taken("after a restart", h, cursors[:7]...)

	r := restored(t, h, whole)
	send(r, "whole", 7, 7)
	taken("where nothing was lost", r, cursors[:7]...)
	refused("where nothing was lost", r, cursors[7])

	r = restored(t, h, part)
	refused("while the log is shorter", r, cursors[4], cursors[5])
	send(r, "part", 4, 8)
	taken("where the log has gone on otherwise", r, cursors[:4]...)
	refused("where the log has gone on otherwise", r, cursors[4:]...)

	other := hosttest.New(t)
	other.MustDeploy("count", testguest.Counter("count"))
	send(other, "other", 1, 8)
	refused("on another host", other, cursors[1:]...)
	taken("on another host", other, empty) // the beginning of every history

	// After a retention it is still the same history, from the cursor just before the first event on.
	done, err := h.Retain(t.Context(), "count", service.Retention{Before: 4, Force: true})
	if err != nil || done.First < 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	taken("after a retention", h, cursors[done.First-1:7]...)
	refused("after a retention", h, cursors[:done.First-1]...)
	taken("after a restored retention", restored(t, h, backedUp(t, h)), cursors[done.First-1:7]...)

	// Versions of entities.
	_, c := serve(t, h.Host, "127.0.0.1:0")
	if p, err := c.EntityEvents(t.Context(), "count", "a/b", "7", 0); err != nil || len(p.Events) != 0 ||
		p.Next != "7" {
		t.Errorf("after the last version: %+v, %v", p, err)
	}
	for _, after := range []string{"8", "99", "18446744073709551615"} {
		if p, err := c.EntityEvents(t.Context(), "count", "a/b", after,
			0); service.KindOf(err) != service.KindBadCursor {
			t.Errorf("after version %s: %+v, %v", after, p, err)
		}
	}
	if status, err := c.Service(t.Context(), "count"); err != nil || status.Cursor != cursors[7] {
		t.Errorf("the status has %s, %v", status.Cursor, err)
	}
}

// A subscriber whose filter matches nothing has a cursor that advances, and resumes from it after a retention
// that has deleted none of its later events.
func TestAFilteredSubscriberComesOn(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	h.MustDeploy("count", testguest.Counter("count"))
	s, err := gateway.New(h.Host, gateway.Options{
		Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), PingTime: 20 * time.Millisecond,
	})
	if err == nil {
		err = s.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	c, err := client.New(client.Options{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	st, err := c.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	to := func(key service.Key, n int) (r service.Reply) {
		for range n {
			r = h.MustSend(service.Command{Service: "count", Key: key, Type: "add", Data: []byte("1")})
		}
		return r
	}
	mine := to("alice", 1)
	wants := service.Selection{Service: "count", Keys: []service.Key{"alice"}}
	sub, err := st.Subscribe(t.Context(), wants, 10)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := sub.Next(t.Context()); err != nil || e.Position != 1 || sub.Cursor() != mine.Cursor.String() {
		t.Fatalf("%+v, %s, %v", e, sub.Cursor(), err)
	}
	last := to("bob", 40)
	for sub.Cursor() != last.Cursor.String() { // until the checkpoint comes, or the test takes too long
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if e, err := sub.Next(ctx); err == nil || service.KindOf(err) != service.KindDeadline {
			t.Fatalf("%+v, %v", e, err)
		}
		cancel()
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if done, err := h.Retain(t.Context(), "count", service.Retention{Before: 30, Force: true}); err != nil ||
		done.First < 20 {
		t.Fatalf("%+v, %v", done, err)
	}
	next := to("alice", 1)
	for name, from := range map[string]string{"checkpoint": last.Cursor.String(), "event": mine.Cursor.String()} {
		wants.From = service.AfterCursor(from)
		p, err := c.Events(t.Context(), wants, 1)
		switch name {
		case "event":
			if service.KindOf(err) != service.KindBadCursor {
				t.Errorf("the cursor of the last event: %+v, %v", p, err)
			}
		default:
			if err != nil || len(p.Events) != 1 || p.Next != next.Cursor.String() {
				t.Errorf("the checkpoint: %+v, %v", p, err)
			}
		}
	}
}

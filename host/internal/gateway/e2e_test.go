package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/internal/telemetry"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func TestMain(m *testing.M) {
	if name, address, ok := strings.Cut(os.Getenv(crowdVariable), " "); ok {
		if err := beCrowd(name, address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serve puts a gateway in front of a host, at the address listen or a free one.
func serve(t testing.TB, h *host.Host, listen string) (*gateway.Server, *client.Client) {
	t.Helper()
	s, err := gateway.New(h, gateway.Options{
		Listen: listen, Logger: slog.New(slog.DiscardHandler),
		Metrics: telemetry.New(telemetry.Options{Host: h}),
	})
	if err == nil {
		err = s.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{URL: s.URL(), Backoff: time.Millisecond, Retries: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s, c
}

func add(id string) service.Command {
	return service.Command{Service: "count", Key: "a/b", Type: "add", ID: service.CommandID(id), Data: []byte("1")}
}

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	s, c := serve(t, h.Host, "127.0.0.1:0")
	ctx := t.Context()

	module := testguest.Counter("count")
	var sent int64
	var stages []string
	status, err := c.Deploy(ctx, service.Deployment{
		Service: "count", Module: module, Limits: service.Limits{Fuel: 5_000_000},
		Settings: service.Settings{Shards: 1},
		Progress: func(p service.Progress) {
			if p.Stage == "uploading" {
				sent = p.Done
				return
			}
			stages = append(stages, p.Stage)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if status.State != service.StateRunning || status.Spec.Limits.Fuel != 5_000_000 || len(status.Shards) != 1 ||
		status.Manifest.ABI == 0 || sent != int64(len(module)) || len(stages) < 3 {
		t.Errorf("status %+v, sent %d, stages %v", status, sent, stages)
	}
	stages = nil
	m, err := c.Upload(ctx, module, func(p service.Progress) {
		if p.Done == 0 {
			stages = append(stages, p.Stage)
		}
	})
	if want := []string{"verifying", "rewriting", "compiling", "initialising", "describing",
		"storing"}; !slices.Equal(stages, want) {
		t.Errorf("the upload went by %v, want %v", stages, want)
	}
	if err != nil || m.Digest != service.DigestOf(module) {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := c.Upload(ctx, []byte("no wasm"), nil); service.KindOf(err) != service.KindBadModule {
		t.Error(err)
	}
	if _, err := c.Deploy(ctx, service.Deployment{Service: "count", Digest: service.DigestOf(nil)}); service.KindOf(
		err) != service.KindNotFound {
		t.Error(err)
	}

	first, err := c.Send(ctx, add("1"))
	if err != nil || string(first.Data) != "1" || first.Version != 1 || first.Repeated {
		t.Errorf("%+v %v", first, err)
	}
	again, err := c.Send(ctx, add("1"))
	if err != nil || string(again.Data) != "1" || !again.Repeated || again.Cursor != first.Cursor {
		t.Errorf("%+v %v", again, err)
	}
	other := add("1")
	other.Data = []byte("2")
	st, err := c.Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	five := service.Version(5)
	for _, tt := range []struct {
		cmd  service.Command
		kind service.Kind
	}{
		{other, service.KindIDReused},
		{service.Command{Service: "count", Key: "k", Type: "add", Expected: &five}, service.KindVersionConflict},
		{service.Command{Service: "count", Key: "k", Type: "reject"}, service.KindRejected},
		{service.Command{Service: "count", Key: "k", Type: "fault"}, service.KindFault},
		{service.Command{Service: "count", Key: "k", Type: "trap"}, service.KindTrap},
		{service.Command{Service: "count", Key: "k", Type: "spin"}, service.KindGuestFuel},
		{service.Command{Service: "count", Key: "k", Type: "nothing"}, service.KindUnknownType},
		{service.Command{Service: "none", Key: "k", Type: "add"}, service.KindNotFound},
		{service.Command{Service: "count", Key: "k", Type: "add", Data: []byte(`"` + strings.Repeat("x", 1<<20) + `"`)}, service.KindTooLarge},
	} {
		for way, send := range map[string]func(context.Context, service.Command) (service.Reply, error){"HTTP": c.Send,
			"WebSocket": st.Send} {
			if _, err := send(ctx, tt.cmd); service.KindOf(err) != tt.kind {
				t.Errorf("%s by %s: %v; want %s", tt.cmd.Type, way, err, tt.kind)
			}
		}
	}
	if r, err := st.Send(ctx, add("2")); err != nil || string(r.Data) != "2" {
		t.Errorf("%+v %v", r, err)
	}
	for way, query := range map[string]func(context.Context, service.Query) (service.QueryReply, error){"HTTP": c.Query,
		"WebSocket": st.Query} {
		if q, err := query(ctx, service.Query{Service: "count", Key: "a/b", Type: "count"}); err != nil ||
			string(q.Data) != "2" || q.Version != 2 {
			t.Errorf("%s: %+v %v", way, q, err)
		}
	}
	page, err := c.Events(ctx, service.Selection{Service: "count"}, 1)
	if err != nil || len(page.Events) != 1 || !page.More || page.Next != first.Cursor.String() {
		t.Fatalf("%+v %v", page, err)
	}
	e := page.Events[0]
	if e.Type != "added" || e.Key != "a/b" || e.Position != 1 || e.Version != 1 || e.CommandID != "1" ||
		e.CommandType != "add" || e.ID != first.Cursor.String() || e.Source != "/services/count" || e.Time.IsZero() {
		t.Errorf("%+v", e)
	}
	page, err = c.Events(ctx, service.Selection{Service: "count", From: service.AfterCursor(page.Next)}, 0)
	if err != nil || len(page.Events) != 1 || page.More {
		t.Errorf("%+v %v", page, err)
	}
	entity, err := c.EntityEvents(ctx, "count", "a/b", "1", 0)
	if err != nil || len(entity.Events) != 1 || entity.Next == "2" || entity.More {
		t.Errorf("%+v %v", entity, err)
	}
	mark, err := service.ParseCursor(entity.Next)
	if again, failed := c.EntityEvents(ctx, "count", "a/b", entity.Next, 0); err != nil || failed != nil ||
		len(again.Events) != 0 || again.Next != entity.Next || again.More {
		t.Errorf("%+v %v %v", again, err, failed)
	}
	if _, err := c.Events(ctx,
		service.Selection{Service: "count",
			From: service.AfterCursor(service.Cursor{Position: 99, Origin: mark.Origin, Stamp: mark.Stamp}.String())},
		0); service.KindOf(err) != service.KindBadCursor {
		t.Errorf("a cursor of the future: %v", err)
	}
	if _, err := c.Events(ctx,
		service.Selection{Service: "count",
			From: service.AfterCursor(service.Cursor{Position: 1, Origin: mark.Stamp, Stamp: mark.Stamp}.String())},
		0); service.KindOf(err) != service.KindBadCursor {
		t.Errorf("a cursor of another service: %v", err)
	}
	sub, err := st.Subscribe(ctx, service.Selection{Service: "count", Types: []service.Type{"added"}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if e, err := sub.Next(ctx); err != nil || int(e.Position) != i+1 {
			t.Errorf("%+v %v", e, err)
		}
	}
	resp, err := http.Get(s.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, want := range []string{`bulkhead_service_committed_total{service="count"} 2`, `bulkhead_journal_events_total 3`, `route="/v1/services/{service}/entities/{key}/commands/{type}",status="200"} 2`, `bulkhead_streams_open{protocol="bulkhead.v1.json"} 1`,
		// HTTP and WebSocket are counted alike; the host's own refusals are not counted.
		`bulkhead_command_seconds_count{service="count",type="add"} 7`, `bulkhead_command_seconds_count{service="count",type="trap"} 2`, `bulkhead_stream_messages_total{op="command"}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if err := c.Delete(ctx, "count"); err != nil {
		t.Error(err)
	}
	// It is stopped. Its events can be read, and a subscription goes on with the next deployment.
	all, err := c.Services(ctx, false)
	if err != nil || len(all) != 1 || all[0].State != service.StateStopped {
		t.Errorf("%+v %v", all, err)
	}
	if page, err := c.Events(ctx, service.Selection{Service: "count"}, 0); err != nil || len(page.Events) != 2 {
		t.Errorf("%+v %v", page, err)
	}
	if err := sub.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Error(err)
	}
}

// Data that does not match its schema is refused with the place, over HTTP and on a WebSocket, and the client
// gets it from both.
func TestDataThatDoesNotFitIsPlaced(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	s, c := serve(t, h.Host, "127.0.0.1:0")
	m := testguest.CounterManifest("count")
	m.Commands[0].Input = `{"type":"object","properties":{"by":{"type":"integer"}},"required":["by"],"additionalProperties":false}`
	m.Queries[0].Input = `{"type":"object","additionalProperties":false}`
	h.MustDeploy("count", testguest.CounterWith(m.AppendJSON(nil), nil))
	st, err := c.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for data, place := range map[string]string{`{}`: "/by", `{"By":1}`: "/By", `{"by":1,"a/b":2}`: "/a~1b", `null`: ""} {
		cmd := add("")
		cmd.Data = []byte(data)
		_, byHTTP := c.Send(t.Context(), cmd)
		_, byStream := st.Send(t.Context(), cmd)
		for way, err := range map[string]error{"HTTP": byHTTP, "WebSocket": byStream} {
			var e *service.Error
			if !errors.As(err, &e) || e.Kind != service.KindInvalid || e.Pointer == nil || *e.Pointer != place {
				t.Errorf("%s by %s: %+v; want the place %q", data, way, err, place)
			}
		}
	}
	url := "http://" + s.Addr().String() + "/v1/services/count/entities/a/queries/count?data=" + `%7B%22at%22%3A1%7D`
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), `"kind":"invalid"`) || !strings.Contains(string(text), `"pointer":"/at"`) {
		t.Errorf("a query: %d %s", resp.StatusCode, text)
	}
	cmd := add("")
	cmd.Data = []byte(`{"by":1}`)
	if r, err := c.Send(t.Context(), cmd); err != nil || r.Version != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

// Commands keep coming while modules are swapped, and gateway and host restart. Each is carried out once, and
// a follower gets each event once, in order.
func TestNothingLostAcrossRestarts(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	listen := hosttest.Address(t)
	s, c := serve(t, h.Host, listen)
	if _, err := c.Deploy(t.Context(),
		service.Deployment{Service: "count", Module: testguest.Counter("count")}); err != nil {
		t.Fatal(err)
	}
	const senders, each = 4, 60
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wait sync.WaitGroup
	half := make(chan struct{}, senders)
	for g := range senders {
		wait.Go(func() {
			for i := range each {
				if i == each/2 {
					half <- struct{}{}
				}
				for {
					_, err := c.Send(ctx, service.Command{Service: "count", Key: service.Key(fmt.Sprint(g)),
						Type: "add", ID: service.CommandID(fmt.Sprintf("%d-%d", g, i)), Data: []byte("1")})
					if err == nil {
						break
					}
					switch service.KindOf(err) {
					case service.KindUnknown, service.KindUnavailable, service.KindOverloaded:
					default:
						t.Errorf("%d-%d: %v", g, i, err)
						return
					}
				}
			}
		})
	}
	done := errors.New("all there")
	followed := make(chan error, 1)
	go func() {
		want := service.Position(1)
		followed <- c.Follow(ctx, service.Selection{Service: "count"}, func(e client.Event) error {
			if e.Position != want {
				return fmt.Errorf("position %d; want %d", e.Position, want)
			}
			if want++; want > senders*each {
				return done
			}
			return nil
		})
	}()
	for range senders {
		<-half
	}
	if _, err := c.Deploy(ctx,
		service.Deployment{Service: "count", Module: testguest.CounterWith(describe(),
			func(b *testguest.Builder) { b.Custom("second", nil) })}); err != nil {
		t.Fatal(err)
	}
	stop, cancelStop := context.WithTimeout(ctx, time.Minute)
	defer cancelStop()
	if err := s.Stop(stop); err != nil {
		t.Error(err)
	}
	h.Restart()
	serve(t, h.Host, listen)
	wait.Wait()
	if err := <-followed; err != done {
		t.Error(err)
	}
	if head, err := h.Head("count"); err != nil || head != senders*each {
		t.Errorf("%d events, %v", head, err)
	}
}

func describe() []byte {
	m := testguest.CounterManifest("count")
	return m.AppendJSON(nil)
}

// The cost of each interface with many clients: commands per second.
func BenchmarkCommands(b *testing.B) {
	h := hosttest.New(b)
	_, c := serve(b, h.Host, "127.0.0.1:0")
	if _, err := c.Deploy(b.Context(),
		service.Deployment{Service: "count", Module: testguest.Counter("count")}); err != nil {
		b.Fatal(err)
	}
	run := func(name string, send func(context.Context, service.Command) (service.Reply, error)) {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(128) // clients per processor
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := send(b.Context(), service.Command{Service: "count", Key: "k", Type: "add",
						Data: []byte("1")}); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
		})
	}
	st, err := c.Stream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	run("process", h.Send)
	run("websocket", st.Send)
	run("http", c.Send)
}

// Events to one subscriber from the start of a log.
func BenchmarkSubscription(b *testing.B) {
	h := hosttest.New(b)
	_, c := serve(b, h.Host, "127.0.0.1:0")
	if _, err := c.Deploy(b.Context(),
		service.Deployment{Service: "count", Module: testguest.Counter("count")}); err != nil {
		b.Fatal(err)
	}
	var wait sync.WaitGroup
	for i := range 200 {
		wait.Go(func() {
			for range 100 {
				h.MustSend(service.Command{Service: "count", Key: service.Key(fmt.Sprint(i)), Type: "add",
					Data: []byte("1")})
			}
		})
	}
	wait.Wait()
	st, err := c.Stream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	for b.Loop() {
		sub, err := st.Subscribe(b.Context(), service.Selection{Service: "count"}, 10_000)
		if err != nil {
			b.Fatal(err)
		}
		for range 20_000 {
			if _, err := sub.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		if err := sub.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*20_000/b.Elapsed().Seconds(), "events/s")
}

// A command whose reply has no room was carried out, and the error says so. The same id brings the reply when
// there is room.
func TestAReplyIsFetchedByItsID(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	_, c := serve(t, h.Host, "127.0.0.1:0")
	h.MustDeploy("bigreply", testguest.BigReply("bigreply"))
	others := h.Account().Child("others", nil)
	if err := others.Take(budget.FlightBytes, h.Budget().FlightBytes-2<<20); err != nil {
		t.Fatal(err)
	}
	cmd := service.Command{Service: "bigreply", Key: "k", Type: "c", ID: "once", Data: []byte("{}")}
	_, err := c.Send(t.Context(), cmd)
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindUnknown || e.Resource != "bytes_in_flight" || e.RetryAfter == 0 {
		t.Fatalf("without room: %v", err)
	}
	if _, err := c.Query(t.Context(), service.Query{Service: "bigreply", Key: "k", Type: "q"}); service.KindOf(
		err) != service.KindOverloaded {
		t.Errorf("a query without room: %v", err)
	}
	if st, err := c.Service(t.Context(), "bigreply"); service.KindOf(err) != service.KindOverloaded {
		t.Errorf("a manifest without room: %+v, %v", st, err)
	}
	others.Close()
	r, err := c.Send(t.Context(), cmd)
	if err != nil || !r.Repeated || len(r.Data) < 3<<20 {
		t.Errorf("with room: %d bytes, repeated %v, %v", len(r.Data), r.Repeated, err)
	}
	st, err := c.Service(t.Context(), "bigreply")
	if err != nil || st.Counters.Committed != 1 {
		t.Errorf("%+v, %v", st.Counters, err)
	}
}

// Events that are too large to be copied arrive unchanged, over every interface.
func TestLargeEventsArrive(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	s, c := serve(t, h.Host, "127.0.0.1:0")
	h.MustDeploy("bigevent", testguest.BigEvent("bigevent"))
	const events = 3
	for range events {
		h.MustSend(service.Command{Service: "bigevent", Key: "k", Type: "c", Data: []byte("{}")})
	}
	want, err := h.EntityEvents(t.Context(), "bigevent", "k", 0, 0)
	if err != nil || len(want) != events || len(want[0].Data) < 3<<20 {
		t.Fatalf("%d events, %v", len(want), err)
	}
	check := func(way string, at service.Position, data []byte, n int) {
		t.Helper()
		if at != want[n].Position || !bytes.Equal(data, want[n].Data) {
			t.Errorf("%s: event %d is %d bytes at %d", way, n, len(data), at)
		}
	}
	from, read := "", 0
	for more := true; more; {
		page, err := c.Events(t.Context(), service.Selection{Service: "bigevent", From: service.AfterCursor(from)}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			check("page", e.Position, e.Data, read)
			read++
		}
		from, more = page.Next, page.More
	}
	entity, after := 0, ""
	for more := true; more; {
		page, err := c.EntityEvents(t.Context(), "bigevent", "k", after, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			check("entity's page", e.Position, e.Data, entity)
			entity++
		}
		after, more = page.Next, page.More
	}
	if read != events || entity != events {
		t.Errorf("pages have %d and %d events", read, entity)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/v1/services/bigevent/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", api.ContentSSE)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for n := 0; n < events; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		if raw, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			e, err := api.DecodeCloudEvent(raw)
			if err != nil {
				t.Fatal(err)
			}
			check("stream", e.Position, e.Body(), n)
			n++
		}
	}
}

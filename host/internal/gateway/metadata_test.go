package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cloudhttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/gorilla/websocket"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// TestEventsTellTheirMetadata: what a guest writes beside its events, and what a client sends with its
// command, is in everything that readers get, over every interface, and equal in all answers of one form. The
// official SDK reads every CloudEvent.
func TestEventsTellTheirMetadata(t *testing.T) {
	t.Parallel()
	h := hosttest.New(t)
	s, c := serve(t, h.Host, "127.0.0.1:0")
	if _, err := c.Deploy(t.Context(),
		service.Deployment{Service: "stamp", Module: hosttest.Module(t, "./testdata/stamp")}); err != nil {
		t.Fatal(err)
	}
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	sent := abi.Metadata(nil).AppendPair("traceparent", trace).AppendPair("tenant", "other").AppendPair("Request",
		"r/1").AppendPair("position", "7")
	// which is written in pieces
	for _, command := range []service.Command{{Type: "stamp", Data: []byte("{}")},
		{Type: "fill", Data: []byte("20000")}} {
		command.Service, command.Key, command.Metadata = "stamp", "k", sent
		if _, err := c.Send(t.Context(), command); err != nil {
			t.Fatal(err)
		}
	}
	const n = 3
	const path, entity = "/v1/services/stamp/events", "/v1/services/stamp/entities/k/events"
	native := map[string][]string{
		"page":             page(t, s.URL()+path),
		"entity":           page(t, s.URL()+entity),
		"bulkhead.v1.json": subscribed(t, s.URL()+"/v1/stream", `{"op":"subscribe","id":"s","service":"stamp","credits":10}`, n),
	}
	cloud := map[string][]string{
		"SSE":              sse(t, s.URL()+path, n),
		"SSE of an entity": sse(t, s.URL()+entity, n),
		"cloudevents.json": oneWay(t, s.URL()+path, n),
		"batch":            batch(t, s.URL()+path),
		"entity's batch":   batch(t, s.URL()+entity),
	}
	want := []map[string]string{
		{"tenant": "acme", "X-Actor": `clerk "7"`, "traceparent": trace, "Request": "r/1", "position": "7"},
		{"traceparent": trace, "tenant": "other", "Request": "r/1", "position": "7"},
		{"traceparent": trace, "tenant": "other", "Request": "r/1", "position": "7"},
	}
	for door, events := range native {
		if len(events) != n {
			t.Fatalf("%s: %d events", door, len(events))
		}
		for i, text := range events {
			var got struct {
				SpecVersion             *string
				Position, EntityVersion json.Number
				Metadata                map[string]string
			}
			if err := json.Unmarshal([]byte(text), &got); err != nil || text != native["page"][i] ||
				got.SpecVersion != nil ||
				got.Position.String() != fmt.Sprint(i+1) || strings.Contains(text, `"position":"1"`) || !maps.Equal(got.Metadata, want[i]) {
				t.Errorf("%s has %.500s, %v, a page %.500s", door, text, err, native["page"][i])
			}
			var own client.Event
			err := json.Unmarshal([]byte(text), &own)
			holds(t, door, own, err, i, want[i])
		}
	}
	for door, events := range cloud {
		if len(events) != n {
			t.Fatalf("%s: %d events", door, len(events))
		}
		for i, text := range events {
			if text != cloud["SSE"][i] {
				t.Errorf("%s has %.500s, SSE %.500s", door, text, cloud["SSE"][i])
			}
			var e cloudevents.Event
			if err := json.Unmarshal([]byte(text), &e); err != nil || e.Validate() != nil {
				t.Fatalf("%s: %v, %v: %.500s", door, err, e.Validate(), text)
			}
			var others map[string]string
			x := e.Extensions()
			if err := json.Unmarshal([]byte(fmt.Sprint(x["metadata"])), &others); err != nil {
				t.Errorf("%s: metadata %q: %v", door, x["metadata"], err)
			}
			left := maps.Clone(want[i])
			delete(left, "tenant")
			delete(left, "traceparent")
			if x["tenant"] != want[i]["tenant"] || x["traceparent"] != trace || x["position"] != fmt.Sprint(i+1) ||
				x["entityversion"] != fmt.Sprint(i+1) || !maps.Equal(others, left) {
				t.Errorf("%s: extensions %v", door, x)
			}
			own, err := api.DecodeCloudEvent([]byte(text))
			holds(t, door, client.Event{Metadata: abi.Metadata(own.Metadata), Position: own.Position,
				Version: own.EntityVersion, Key: service.Key(own.Subject), Data: own.Data}, err, i, want[i])
		}
	}
	enough, seen := errors.New("enough"), 0
	if err := c.Follow(t.Context(), service.Selection{Service: "stamp"}, func(e client.Event) error {
		holds(t, "Follow", e, nil, seen, want[seen])
		if seen++; seen == n {
			return enough
		}
		return nil
	}); err != enough {
		t.Error(err)
	}
}

// holds checks an event that comes after n others, and its metadata.
func holds(t *testing.T, door string, e client.Event, err error, n int, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for name, value := range service.Pairs(e.Metadata) {
		got[string(name)] = string(value)
	}
	if err != nil || !maps.Equal(got, want) || e.Position != service.Position(n+1) ||
		e.Version != service.Version(n+1) || e.Key != "k" || !json.Valid(e.Data) {
		t.Errorf("%s: %v, metadata %v, want %v, in %.500v", door, err, got, want, e)
	}
}

// page returns the events of a page.
func page(t *testing.T, url string) (events []string) {
	t.Helper()
	var p struct{ Events []json.RawMessage }
	if err := json.Unmarshal(get(t, url), &p); err != nil {
		t.Fatal(err)
	}
	for _, e := range p.Events {
		events = append(events, string(e))
	}
	return events
}

// batch returns the events of a batch, as read by the official SDK.
func batch(t *testing.T, url string) (events []string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", api.ContentBatch)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	read, err := cloudhttp.NewEventsFromHTTPResponse(resp)
	if err != nil {
		t.Fatalf("%v: %.500s", err, text)
	}
	var each []json.RawMessage
	if err := json.Unmarshal(text, &each); err != nil {
		t.Fatal(err)
	}
	for i, e := range each {
		var same cloudevents.Event
		if err := json.Unmarshal(e, &same); err != nil || same.String() != read[i].String() {
			t.Errorf("%v: in the batch %s is %s", err, same, read[i])
		}
		events = append(events, string(e))
	}
	return events
}

// subscribed returns the first events for a message to a stream.
func subscribed(t *testing.T, url, message string, n int) (events []string) {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{api.ProtocolStream}}
	c, resp, err := dialer.DialContext(t.Context(), strings.Replace(url, "http", "ws", 1), nil)
	if err != nil {
		t.Fatal(err, resp)
	}
	defer c.Close()
	if err := c.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
		t.Fatal(err)
	}
	for len(events) < n {
		var m api.ServerMessage
		if err := c.ReadJSON(&m); err != nil || m.Problem != nil {
			t.Fatal(err, m.Problem)
		}
		if m.Op == api.OpEvent {
			events = append(events, string(m.Event))
		}
	}
	return events
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v: %s", url, resp.StatusCode, err, &b)
	}
	return b.Bytes()
}

// sse returns the data of the first events of a stream.
func sse(t *testing.T, url string, n int) (data []string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", api.ContentSSE)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for len(data) < n && lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			data = append(data, text)
		}
	}
	return data
}

// oneWay returns the first messages of a WebSocket that accepts none.
func oneWay(t *testing.T, url string, n int) (data []string) {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{api.ProtocolCloudEvents}}
	c, resp, err := dialer.DialContext(t.Context(), strings.Replace(url, "http", "ws", 1), nil)
	if err != nil {
		t.Fatal(err, resp)
	}
	defer c.Close()
	for range n {
		_, text, err := c.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, string(text))
	}
	return data
}

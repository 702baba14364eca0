package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/gorilla/websocket"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/client"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// TestEventsTellTheirMetadata: what a guest writes beside its events, and what a client sends
// with its command, is in all that readers get, by every door, and the same by each. The
// official SDK reads it.
func TestEventsTellTheirMetadata(t *testing.T) {
	h := hosttest.New(t)
	s, c := serve(t, h.Host, "127.0.0.1:0")
	if _, err := c.Deploy(t.Context(), client.Deployment{Service: "stamp", Module: hosttest.Module(t, "./testdata/stamp")}); err != nil {
		t.Fatal(err)
	}
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	sent := abi.Metadata(nil).AppendPair("traceparent", trace).AppendPair("tenant", "other").AppendPair("Request", "r/1")
	r, err := c.Send(t.Context(), service.Command{Service: "stamp", Key: "k", Type: "stamp", Data: []byte("{}"), Metadata: sent})
	if err != nil || r.Events != 2 {
		t.Fatalf("%+v %v", r, err)
	}

	texts := map[string][]string{}
	for door, path := range map[string]string{"page": "/v1/services/stamp/events", "entity": "/v1/services/stamp/entities/k/events"} {
		var page struct{ Events []json.RawMessage }
		if err := json.Unmarshal(get(t, s.URL()+path), &page); err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			texts[door] = append(texts[door], string(e))
		}
	}
	texts["SSE"] = sse(t, s.URL()+"/v1/services/stamp/events", 2)
	texts["cloudevents.json"] = oneWay(t, s.URL()+"/v1/services/stamp/events", 2)
	st, err := c.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	sub, err := st.Subscribe(t.Context(), client.Selection{Service: "stamp"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		e, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		texts["bulkhead.v1.json"] = append(texts["bulkhead.v1.json"], string(e.Raw))
	}

	want := []map[string]string{
		{"tenant": "acme", "X-Actor": `clerk "7"`, "traceparent": trace, "Request": "r/1"},
		{"traceparent": trace, "tenant": "other", "Request": "r/1"},
	}
	for door, events := range texts {
		if len(events) != 2 {
			t.Fatalf("%s: %d events", door, len(events))
		}
		for i, text := range events {
			if text != texts["page"][i] {
				t.Errorf("%s has %s, a page %s", door, text, texts["page"][i])
			}
			var e cloudevents.Event
			if err := json.Unmarshal([]byte(text), &e); err != nil || e.Validate() != nil {
				t.Fatalf("%s: %v, %v: %s", door, err, e.Validate(), text)
			}
			if x := e.Extensions(); x["tenant"] != want[i]["tenant"] || x["traceparent"] != trace || x["position"] != fmt.Sprint(i+1) || x["X-Actor"] != nil {
				t.Errorf("%s: extensions %v", door, x)
			}
			own, err := api.DecodeEvent([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			m, err := own.Metadata()
			got := map[string]string{}
			for name, value := range service.Pairs(m) {
				got[string(name)] = string(value)
			}
			if err != nil || !maps.Equal(got, want[i]) || own.Position != service.Position(i+1) || own.EntityVersion != service.Version(i+1) {
				t.Errorf("%s: metadata %v, %v, want %v", door, got, err, want[i])
			}
		}
	}
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

// sse are the data of the first events of a stream.
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
	for lines := bufio.NewScanner(resp.Body); len(data) < n && lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			data = append(data, text)
		}
	}
	return data
}

// oneWay are the first messages of a WebSocket that takes none.
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

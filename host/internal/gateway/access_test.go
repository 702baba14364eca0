package gateway

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

const secret = "0123456789abcdef-token"

func TestToken(t *testing.T) {
	s := start(t, Options{Token: secret})
	for _, h := range [][]string{nil, {"Authorization", "Bearer " + secret + "x"}, {"Authorization", "Bearer"},
		{"Authorization", "Basic " + secret}, {"Authorization", secret}} {
		g := s.do("GET", "/v1/services", "", h...)
		s.problem(g, 401, "unauthorized")
		if g.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("header %v", g.header)
		}
	}
	s.problem(s.do("GET", "/metrics", ""), 401, "unauthorized")
	s.problem(s.do("GET", "/nothing", ""), 401, "unauthorized")
	for _, open := range []string{"/healthz", "/readyz", "/openapi.json"} {
		if g := s.do("GET", open, ""); g.status != 200 {
			t.Errorf("%s: %d", open, g.status)
		}
	}
	for _, scheme := range []string{"Bearer", "bearer"} {
		if g := s.do("GET", "/v1/services", "", "Authorization", scheme+" "+secret, "Host",
			"any.example"); g.status != 200 {
			t.Errorf("with the token: %d", g.status)
		}
	}
	if _, err := s.client.Services(t.Context(), false); err != nil {
		t.Error(err)
	}
	other, err := client.New(client.Options{URL: s.server.URL(), Token: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Stream(t.Context()); service.KindOf(err) != service.KindUnauthorized {
		t.Errorf("stream: %v", err)
	}
}

func dial(s *site, path string, header http.Header, protocols ...string) (*websocket.Conn, int, error) {
	d := websocket.Dialer{Subprotocols: protocols}
	ws, resp, err := d.DialContext(s.Context(), "ws"+strings.TrimPrefix(s.server.URL(), "http")+path, header)
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	return ws, status, err
}

// A browser cannot set headers, so the token comes as a subprotocol; it is not sent back.
func TestTokenAsSubprotocol(t *testing.T) {
	s := start(t, Options{Token: secret})
	token := api.ProtocolTokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(secret))
	ws, _, err := dial(s, "/v1/stream", nil, token, api.ProtocolStream)
	if err != nil {
		t.Fatal(err)
	}
	if ws.Subprotocol() != api.ProtocolStream {
		t.Errorf("subprotocol %q", ws.Subprotocol())
	}
	ws.Close()
	for _, bad := range []string{api.ProtocolTokenPrefix, api.ProtocolTokenPrefix + "!!", api.ProtocolTokenPrefix +
		"AAAA", secret} {
		if _, status, err := dial(s, "/v1/stream", nil, bad, api.ProtocolStream); err == nil || status != 401 {
			t.Errorf("%q: %d %v", bad, status, err)
		}
	}
	// Only for upgrades.
	s.problem(s.do("GET", "/v1/services", "", "Sec-WebSocket-Protocol", token), 401, "unauthorized")
}

func TestHostNames(t *testing.T) {
	s := start(t, Options{AllowedHosts: []string{"Box.example"}})
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:1": 200, "localhost.": 200, "127.0.0.1:99": 200, "127.9.9.9": 200, "[::1]:80": 200,
		"box.example:8080": 200,
		"evil.example":     421, "evil.example:8080": 421, "10.0.0.1": 421, "localhost.evil.example": 421,
		"127.0.0.1.evil.example": 421,
	} {
		g := s.do("GET", "/v1/services", "", "Host", host)
		if g.status != want {
			t.Errorf("%s: %d, want %d", host, g.status, want)
		}
		if want == 421 {
			s.problem(g, 421, "unauthorized")
		}
	}
	s.problem(s.do("GET", "/healthz", "", "Host", "evil.example"), 421, "unauthorized")
}

func TestOrigins(t *testing.T) {
	s := start(t, Options{AllowedOrigins: []string{"https://console.example"}})
	own := s.server.URL()
	for origin, ok := range map[string]bool{"": true, own: true, "https://console.example": true,
		"https://evil.example": false, "null": false, "http://127.0.0.1:1": false, "file://": false} {
		header := http.Header{}
		headers := []string{}
		if origin != "" {
			header.Set("Origin", origin)
			headers = []string{"Origin", origin}
		}
		for _, path := range []string{"/v1/stream", "/v1/services/bank/events"} {
			ws, status, err := dial(s, path, header)
			if (err == nil) != ok || !ok && status != 403 {
				t.Errorf("%s from %q: %d %v", path, origin, status, err)
			}
			if err == nil {
				ws.Close()
			}
		}
		// Requests that a page can send without a preflight are refused as well.
		g := s.do("POST", commands+"add", "1", append(headers, "Content-Type", "text/plain;a=b")...)
		if (g.status == 403) == ok {
			t.Errorf("command from %q: %d %s", origin, g.status, g.body)
		}
	}
	// One allowed origin does not help a request with another one.
	for _, origins := range [][]string{{own, "https://evil.example"}, {"https://console.example", own}} {
		if ws, status, err := dial(s, "/v1/stream", http.Header{"Origin": origins}); err == nil || status != 403 {
			t.Errorf("with the origins %q: %d %v", origins, status, err)
			if err == nil {
				ws.Close()
			}
		}
	}
	s.problem(s.do("POST", commands+"add", "1", "Sec-Fetch-Site", "cross-site"), 403, "unauthorized")
	if n := len(s.fake.seen); n != 0 {
		t.Errorf("%d commands came through", n) // bank does not accept text/plain
	}
}

// Only pages of allowed origins see answers.
func TestCrossOrigin(t *testing.T) {
	const friend = "https://console.example"
	s := start(t, Options{AllowedOrigins: []string{friend}, Token: secret})
	g := s.do("OPTIONS", commands+"add", "", "Origin", friend, "Access-Control-Request-Method", "POST")
	if g.status != 204 || g.header.Get("Access-Control-Allow-Origin") != friend ||
		!strings.Contains(g.header.Get("Access-Control-Allow-Headers"), "Idempotency-Key") {
		t.Errorf("%d %v", g.status, g.header)
	}
	g = s.do("POST", commands+"add", "", "Origin", friend, "Sec-Fetch-Site", "cross-site", "Authorization", "Bearer "+
		secret)
	if g.status != 200 || g.header.Get("Access-Control-Allow-Origin") != friend || g.header.Get("Vary") != "Origin" {
		t.Errorf("%d %v", g.status, g.header)
	}
	s.problem(s.do("POST", commands+"add", "", "Origin", friend), 401, "unauthorized")
	g = s.do("OPTIONS", commands+"add", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST",
		"Authorization", "Bearer "+secret)
	if g.status != 204 || g.header.Get("Access-Control-Allow-Origin") != "" ||
		g.header.Get("Allow") != "OPTIONS, POST" {
		t.Errorf("%d %v", g.status, g.header)
	}
}

// A page of another site cannot make a browser open streams, even though it would not see them.
func TestForeignReads(t *testing.T) {
	s := start(t, Options{})
	for _, site := range []string{"cross-site", "same-site"} {
		s.problem(s.do("GET", "/v1/services/bank/events", "", "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "no-cors",
			"Accept", api.ContentSSE), 403, "unauthorized")
		if g := s.do("GET", "/v1/services", "", "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest",
			"document"); g.status != 200 {
			t.Errorf("following a link: %d", g.status)
		}
		if g := s.do("GET", "/openapi.json", "", "Sec-Fetch-Site", site); g.status != 200 {
			t.Errorf("the document: %d", g.status)
		}
	}
	if g := s.do("GET", "/v1/services", "", "Sec-Fetch-Site", "same-origin"); g.status != 200 {
		t.Errorf("from the host itself: %d", g.status)
	}
}

func TestListening(t *testing.T) {
	for listen, ok := range map[string]bool{"127.0.0.1:0": true, "localhost:0": true, "[::1]:0": true, ":0": false,
		"0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:0": false} {
		s, err := New(newFake(), Options{Listen: listen})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Start(t.Context())
		if refused := service.KindOf(err) == service.KindInvalid && err != nil; refused == ok {
			t.Errorf("%s: %v", listen, err)
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, o := range []Options{{Token: secret}, {Insecure: true}} {
		o.Listen = "0.0.0.0:0"
		s, err := New(newFake(), o)
		if err == nil {
			err = s.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(s.URL(), "http://127.0.0.1:") {
			t.Error(s.URL())
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestOptionsSayAllThatIsWrong(t *testing.T) {
	_, err := New(newFake(), Options{Token: "short", Connections: -1, PingTime: 1, AllowedOrigins: []string{"x"}})
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindInvalid || len(e.Reasons) != 4 {
		t.Errorf("%v", err)
	}
}

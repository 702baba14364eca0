package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/ws"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// access decides which requests may come in. It is immutable.
type access struct {
	token     [sha256.Size]byte
	withToken bool
	// anyHost accepts every host name. Without a token, foreign web pages are kept out because their name is
	// not ours; with a token, because they do not know it.
	anyHost bool
	hosts   []string
	origins []string
	cross   *http.CrossOriginProtection
}

func newAccess(o Options) (*access, error) {
	a := &access{
		token: sha256.Sum256([]byte(o.Token)), withToken: o.Token != "", anyHost: o.Token != "" || o.Insecure,
		hosts: append([]string{"localhost", "127.0.0.1", "::1"}, o.AllowedHosts...), origins: o.AllowedOrigins,
		cross: http.NewCrossOriginProtection(),
	}
	for i, h := range a.hosts {
		a.hosts[i] = strings.ToLower(h)
	}
	for _, origin := range o.AllowedOrigins {
		if err := a.cross.AddTrustedOrigin(origin); err != nil {
			return nil, service.Errorf(service.KindInvalid, "allowed origin %q: %w", origin, err)
		}
	}
	return a, nil
}

// mayListen refuses to serve other machines without a token.
func mayListen(addr *net.TCPAddr, o Options) error {
	if addr.IP.IsLoopback() || o.Token != "" || o.Insecure {
		return nil
	}
	return service.Errorf(service.KindInvalid, "%s can be reached from other machines; set a token, or say that it "+
		"shall be insecure", o.Listen)
}

// check checks a request at a door, and returns the reason for a refusal.
func (a *access) check(r *http.Request, d door) error {
	if !a.anyHost && !a.knownHost(r.Host) {
		return api.WithStatus(http.StatusMisdirectedRequest, service.Errorf(service.KindUnauthorized,
			"without a token this host answers to localhost only; the request was for another name"))
	}
	if err := a.cross.Check(r); err != nil {
		return api.WithStatus(http.StatusForbidden, service.Errorf(service.KindUnauthorized, "pages of other "+
			"origins may not do this; the operator can allow an origin"))
	}
	if d != open && a.foreignRead(r, d) {
		return api.WithStatus(http.StatusForbidden, service.Errorf(service.KindUnauthorized, "pages of other "+
			"origins may not read this; the operator can allow an origin"))
	}
	if ws.IsUpgrade(r) && !a.knownOrigin(r) {
		return api.WithStatus(http.StatusForbidden, service.Errorf(service.KindUnauthorized, "pages of other "+
			"origins may not open a WebSocket; the operator can allow an origin"))
	}
	if a.withToken && d != open && !a.hasToken(r) {
		return service.Errorf(service.KindUnauthorized, "this needs the host's token: Authorization: Bearer <token>")
	}
	return nil
}

// foreignRead reports whether a page of another origin makes its browser fetch something. The page would not
// see the answer, but could open all available streams. Following a link is allowed unless it runs a guest.
func (a *access) foreignRead(r *http.Request, d door) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	if d != running && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" {
		return false
	}
	return !slices.Contains(a.origins, r.Header.Get("Origin"))
}

// What pages of allowed origins may do, as headers of the Fetch standard.
var (
	allowedMethods = "GET, POST, PUT, DELETE"
	allowedHeaders = strings.Join([]string{
		"Authorization", "Content-Type", api.HeaderCommandID, api.HeaderExpected, "If-None-Match", api.HeaderDeadline,
		api.HeaderMetadata, api.HeaderTraceparent, api.HeaderTracestate, api.HeaderLastEventID,
	}, ", ")
	exposedHeaders = strings.Join([]string{"ETag", "Link", "Retry-After", api.HeaderNext, api.HeaderRequestID}, ", ")
)

// asksFirst reports whether the request is a preflight: a browser asks what a page may send. The page does
// not see the answer.
func asksFirst(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

// crossOrigin lets the pages of allowed origins see answers, and answers preflight requests.
func (a *access) crossOrigin(h http.Header, r *http.Request) {
	if len(a.origins) == 0 {
		return
	}
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !slices.Contains(a.origins, origin) {
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	if !asksFirst(r) {
		h.Set("Access-Control-Expose-Headers", exposedHeaders)
		return
	}
	h.Set("Access-Control-Allow-Methods", allowedMethods)
	h.Set("Access-Control-Allow-Headers", allowedHeaders)
	h.Set("Access-Control-Max-Age", "600")
}

func (a *access) knownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return true
	}
	return slices.Contains(a.hosts, host)
}

// knownOrigin guards upgrades, which are GET, so CrossOriginProtection does not check them. A client that
// sends no Origin is not a browser.
func (a *access) knownOrigin(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return true
	}
	if len(values) > 1 {
		return false
	}
	if slices.Contains(a.origins, values[0]) {
		return true
	}
	u, err := url.Parse(values[0])
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && strings.EqualFold(u.Host, r.Host)
}

// hasToken looks for the token in the header and, for browsers, among the offered subprotocols of an upgrade.
func (a *access) hasToken(r *http.Request) bool {
	for _, h := range r.Header.Values("Authorization") {
		if scheme, token, _ := strings.Cut(h, " "); strings.EqualFold(scheme, "Bearer") &&
			a.isToken(strings.TrimSpace(token)) {
			return true
		}
	}
	if !ws.IsUpgrade(r) {
		return false
	}
	for _, p := range ws.Offered(r) {
		if text, ok := strings.CutPrefix(p, api.ProtocolTokenPrefix); ok {
			if token, err := base64.RawURLEncoding.DecodeString(text); err == nil && a.isToken(string(token)) {
				return true
			}
		}
	}
	return false
}

// isToken compares digests, so that its time depends on neither content nor length.
func (a *access) isToken(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], a.token[:]) == 1
}

package host

import (
	"context"
	"net/http"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/internal/telemetry"
)

// HandlerOptions say to whom a [Handler] answers, and how. A zero field means its default.
type HandlerOptions struct {
	// Token is what clients must show: Authorization: Bearer and the token. It needs at least 16
	// bytes. Empty: nobody has to show one.
	Token string
	// AllowedHosts are names under which clients may reach the handler without a token, beside
	// localhost and the loopback addresses. A web page cannot make a browser use another name.
	AllowedHosts []string
	// Insecure answers without a token under any name.
	Insecure bool
	// AllowedOrigins are origins, such as https://console.example, whose pages may use the
	// handler from a browser, beside its own.
	AllowedOrigins []string
	// RequestTime bounds how long a command or query is waited for. Default 60 s.
	RequestTime time.Duration
	// Streams bounds the WebSockets and event streams that are open at a time. Default 1024.
	Streams int
	// ModuleBytes bounds an uploaded module, in bytes. Default: that of [service.DefaultLimits].
	ModuleBytes int64
}

// Handler serves a host over HTTP and WebSocket within a server of the embedding program: the interface
// that the program bulkhead serves, with /openapi.json, /healthz, /readyz and /metrics.
// It may be mounted anywhere with [http.StripPrefix]. It is safe for concurrent use.
//
// How many connections there are, and how long they may be idle or send headers, is the
// business of that server. What requests hold in memory is taken from the host's budget.
type Handler struct{ gateway *gateway.Server }

// Handler makes a handler. Stop it before the host is closed. Several may serve one host.
func (h *Host) Handler(o HandlerOptions) (*Handler, error) {
	g, err := gateway.New(h, gateway.Options{
		Token: o.Token, Insecure: o.Insecure, AllowedHosts: o.AllowedHosts, AllowedOrigins: o.AllowedOrigins,
		Logger: h.opt.Logger, Metrics: telemetry.New(telemetry.Options{Host: h}),
		RequestTime: o.RequestTime, Streams: o.Streams, ModuleBytes: o.ModuleBytes,
	})
	if err != nil {
		return nil, err
	}
	return &Handler{g}, nil
}

// ServeHTTP implements [http.Handler]. After Stop it refuses requests with 503.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.gateway.Handler().ServeHTTP(w, r)
}

// Stop ends the streams, lets other requests in flight finish, and cuts off whatever is left when
// ctx ends; then it returns ctx's cause. Later calls return what the first did.
func (h *Handler) Stop(ctx context.Context) error { return h.gateway.Stop(ctx) }

// Collector collects what a host counts: its services, its journal, how long commands and queries
// took, and its resources. It is a prometheus.Collector, to be registered once:
//
//	prometheus.MustRegister(h.Collector())
func (h *Host) Collector() telemetry.Collector { return telemetry.Of(h) }

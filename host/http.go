package host

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/internal/telemetry"
)

// HandlerOptions say which clients a [Handler] answers, and how. A zero field means its default.
type HandlerOptions struct {
	// Token is what clients must send as "Authorization: Bearer" and the token. It has at least 16 bytes.
	// Empty: no token is needed.
	Token string
	// AllowedHosts are names under which clients without a token may reach the handler, beside localhost and
	// the loopback addresses. A web page whose own name leads to the handler is refused.
	AllowedHosts []string
	// Insecure answers requests without a token under any name.
	Insecure bool
	// AllowedOrigins are origins, such as https://console.example, whose pages may use the handler from a
	// browser. The handler's own origin is always allowed.
	AllowedOrigins []string
	// RequestTime is the maximum wait for the answer to a command or query. Default 60 s.
	RequestTime time.Duration
	// Streams is the maximum number of open WebSockets and event streams. Default 1024.
	Streams int
	// ModuleBytes is the maximum size of an uploaded module, in bytes. Default: that of
	// [service.DefaultLimits].
	ModuleBytes int64
}

// Handler serves a host over HTTP and WebSocket within a server of the embedding program. It has the
// interface of the program bulkhead, with /openapi.json, /healthz, /readyz and /metrics. It may be mounted
// anywhere with [http.StripPrefix]. It is safe for concurrent use.
//
// That server limits the number of connections, and how long they may be idle or send headers. The memory of
// requests is taken from the host's budget.
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

// Stop ends the streams and lets other requests in flight finish. When ctx ends it cuts off those that are
// left and returns ctx's cause. Later calls return the result of the first.
func (h *Handler) Stop(ctx context.Context) error { return h.gateway.Stop(ctx) }

// Collector collects the host's metrics: its services, its journal, durations of commands and queries, and
// resources. It is a prometheus.Collector; register it once:
//
//	prometheus.MustRegister(h.Collector())
func (h *Host) Collector() prometheus.Collector { return telemetry.Of(h) }

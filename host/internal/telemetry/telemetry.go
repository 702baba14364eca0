// Package telemetry shows what a host does as Prometheus metrics. It reads the
// host from outside, when it is asked; nothing below depends on being measured.
package telemetry

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Options says what to measure. The functions are called at each scrape and must
// not block; nil: there is nothing.
type Options struct {
	// Version of the program, for bulkhead_build_info. Default: that of its module.
	Version string
	// Services is the status of all services.
	Services func() []service.Status
	// Journal is what the journal counted.
	Journal func() journal.Stats
	// LogDropped is how many lines of the log were dropped, as nobody read it.
	LogDropped func() uint64
	// Readers is what those do who read logs.
	Readers func() service.Readers
	// Latencies is how long commands took, and QueryLatencies how long queries did.
	Latencies      func() []service.Latency
	QueryLatencies func() []service.Latency
	// Resources is how much of each of the host's resources is in use.
	Resources func() []service.ResourceUsage
}

// Telemetry holds the metrics. A nil *Telemetry takes everything and shows
// nothing. It is safe for concurrent use.
type Telemetry struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	streams  *prometheus.GaugeVec
	messages *prometheus.CounterVec
	refused  *prometheus.CounterVec
}

// New makes a registry of its own, so that several hosts can live in one process.
func New(o Options) *Telemetry {
	if o.Version == "" {
		o.Version = moduleVersion()
	}
	t := &Telemetry{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_http_requests_total", Help: "Number of HTTP requests that were answered, by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "bulkhead_http_request_seconds", Help: "How long HTTP requests took that were not streams, in seconds, by route.",
			// From a fraction of a sync of the disk to the longest that a call may take.
			Buckets: []float64{.0005, .001, .002, .004, .008, .016, .032, .064, .128, .256, .512, 1, 2, 4, 8, 16, 32},
		}, []string{"route"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "bulkhead_streams_open", Help: "Number of streams that are open now, by protocol.",
		}, []string{"protocol"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_stream_messages_total", Help: "Number of messages that WebSocket clients sent, by operation.",
		}, []string{"op"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_connections_refused_total", Help: "Number of connections that were closed to make room for others: newcomers and idle ones when there were too many connections, stalled ones when their bytes were needed, and working ones when the journal needed their descriptors.",
		}, []string{"which"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "bulkhead_build_info", Help: "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": o.Version, "go": runtime.Version()},
	})
	build.Set(1)
	t.registry.MustRegister(t.requests, t.seconds, t.streams, t.messages, t.refused, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if o.Services != nil {
		t.registry.MustRegister(newServices(o.Services))
	}
	if o.LogDropped != nil {
		t.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "bulkhead_log_lines_dropped_total", Help: "Number of lines of the host's log that were dropped because nobody read it, or not fast enough.",
		}, func() float64 { return float64(o.LogDropped()) }))
	}
	if o.Journal != nil {
		t.registry.MustRegister(newJournal(o.Journal))
	}
	if o.Readers != nil {
		t.registry.MustRegister(newReaders(o.Readers))
	}
	if o.Latencies != nil {
		t.registry.MustRegister(newLatencies("command", "commands", o.Latencies))
	}
	if o.QueryLatencies != nil {
		t.registry.MustRegister(newLatencies("query", "queries", o.QueryLatencies))
	}
	if o.Resources != nil {
		t.registry.MustRegister(newResources(o.Resources))
	}
	return t
}

func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// Handler answers a scrape.
func (t *Telemetry) Handler() http.Handler {
	if t == nil {
		return http.NotFoundHandler()
	}
	// What can be collected is shown, even if something else fails.
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// Request counts an answered request. Route is a pattern, never a path: there
// must be few different ones. Took is 0 for a stream.
func (t *Telemetry) Request(route string, status int, took time.Duration) {
	if t == nil {
		return
	}
	t.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	if took > 0 {
		t.seconds.WithLabelValues(route).Observe(took.Seconds())
	}
}

// Stream counts an open stream; call what it returns when it has ended.
func (t *Telemetry) Stream(protocol string) (ended func()) {
	if t == nil {
		return func() {}
	}
	g := t.streams.WithLabelValues(protocol)
	g.Inc()
	return g.Dec
}

// Message counts a message of a client. Op is one of the protocol's own, or
// anything else by one name.
func (t *Telemetry) Message(op string) {
	if t != nil {
		t.messages.WithLabelValues(op).Inc()
	}
}

// Refused counts a connection that was closed to make room: "newcomer", "idle", "stalled"
// or "working".
func (t *Telemetry) Refused(which string) {
	if t != nil {
		t.refused.WithLabelValues(which).Inc()
	}
}

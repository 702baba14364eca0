// Package telemetry presents a host's numbers as Prometheus metrics. It reads them from the host at each scrape; the
// host does not depend on it.
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

// Host is the host that is measured; *host.Host implements it. Its methods are called at each scrape. They must not
// block, and must be safe for concurrent use.
type Host interface {
	// Services returns the status of all services.
	Services() []service.Status
	// Stats returns the journal's counters.
	Stats() journal.Stats
	// Readers returns what readers of logs are doing.
	Readers() service.Readers
	// Latencies returns how long commands took, and QueryLatencies how long queries took.
	Latencies() []service.Latency
	QueryLatencies() []service.Latency
	// Resources returns how much of each of the host's resources is in use.
	Resources() []service.ResourceUsage
}

// Of returns a collector of a host's metrics.
func Of(h Host) prometheus.Collector {
	return group{
		newServices(h.Services), newJournal(h.Stats), newReaders(h.Readers),
		newLatencies("command", "commands", h.Latencies), newLatencies("query", "queries", h.QueryLatencies),
		newResources(h.Resources),
	}
}

// group is several collectors in one.
type group []prometheus.Collector

// Describe implements prometheus.Collector.
func (g group) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range g {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (g group) Collect(ch chan<- prometheus.Metric) {
	for _, c := range g {
		c.Collect(ch)
	}
}

// Options says what to measure.
type Options struct {
	// Version is the program's version, for bulkhead_build_info. Default: the version of its module.
	Version string
	// Host, if not nil, is measured.
	Host Host
	// LogDropped, if not nil, returns how many log lines were dropped because nobody read them.
	LogDropped func() uint64
}

// Telemetry holds the metrics. The methods of a nil *Telemetry do nothing. It is safe for concurrent use.
type Telemetry struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	streams  *prometheus.GaugeVec
	messages *prometheus.CounterVec
	refused  *prometheus.CounterVec
}

// New returns a Telemetry with its own registry, so that several hosts can be in one process.
func New(o Options) *Telemetry {
	if o.Version == "" {
		o.Version = moduleVersion()
	}
	t := &Telemetry{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_http_requests_total",
			Help: "Number of HTTP requests that were answered, by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "bulkhead_http_request_seconds",
			Help: "How long HTTP requests took that were not streams, in seconds, by route.",
			// In seconds: from a fraction of a disk sync to the maximum time of a call.
			Buckets: []float64{.0005, .001, .002, .004, .008, .016, .032, .064, .128, .256, .512, 1, 2, 4, 8, 16, 32},
		}, []string{"route"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "bulkhead_streams_open", Help: "Number of streams that are open now, by protocol.",
		}, []string{"protocol"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_stream_messages_total",
			Help: "Number of messages that WebSocket clients sent, by operation.",
		}, []string{"op"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bulkhead_connections_refused_total",
			Help: "Number of connections that were closed to make room for others: newcomers and idle ones when " +
				"there were too many connections, stalled ones when their bytes were needed, and working ones when " +
				"the journal needed their descriptors.",
		}, []string{"which"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "bulkhead_build_info", Help: "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": o.Version, "go": runtime.Version()},
	})
	build.Set(1)
	t.registry.MustRegister(t.requests, t.seconds, t.streams, t.messages, t.refused, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if o.Host != nil {
		t.registry.MustRegister(Of(o.Host))
	}
	if o.LogDropped != nil {
		t.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "bulkhead_log_lines_dropped_total",
			Help: "Number of lines of the host's log that were dropped because nobody read it, or not fast enough.",
		}, func() float64 { return float64(o.LogDropped()) }))
	}
	return t
}

func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// Handler returns the handler of scrapes.
func (t *Telemetry) Handler() http.Handler {
	if t == nil {
		return http.NotFoundHandler()
	}
	// If one collector fails, the others are shown.
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// Request counts an answered request. route is a pattern, never a path, as there must be few different ones. took is
// 0 for a stream.
func (t *Telemetry) Request(route string, status int, took time.Duration) {
	if t == nil {
		return
	}
	t.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	if took > 0 {
		t.seconds.WithLabelValues(route).Observe(took.Seconds())
	}
}

// Stream counts an open stream. The caller calls ended when it has ended.
func (t *Telemetry) Stream(protocol string) (ended func()) {
	if t == nil {
		return func() {}
	}
	g := t.streams.WithLabelValues(protocol)
	g.Inc()
	return g.Dec
}

// Message counts a message from a client. op is one of the protocol's operations, or one fixed name for all others.
func (t *Telemetry) Message(op string) {
	if t != nil {
		t.messages.WithLabelValues(op).Inc()
	}
}

// Refused counts a connection that was closed to make room. which says what it was: "newcomer", "idle", "stalled" or
// "working".
func (t *Telemetry) Refused(which string) {
	if t != nil {
		t.refused.WithLabelValues(which).Inc()
	}
}

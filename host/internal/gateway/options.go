package gateway

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/streams"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Options say where and how to serve. A zero field means its default.
type Options struct {
	// Listen is the address: host and port. Default 127.0.0.1:8080. Port 0 chooses a free one; see
	// [Server.Addr].
	Listen string
	// Token is what clients must send; empty: no token is needed. It has at least 16 bytes.
	Token string
	// Insecure allows other machines to connect without a token.
	Insecure bool
	// AllowedHosts are names under which clients without a token may reach the host, beside localhost and the
	// loopback addresses.
	AllowedHosts []string
	// AllowedOrigins are origins, such as https://console.example, whose pages may use the host from a
	// browser. The host's own origin is always allowed.
	AllowedOrigins []string

	// Logger gets errors, with the request's id. Default slog.Default().
	Logger *slog.Logger
	// Metrics, if not nil, is called for each event that it counts. *telemetry.Telemetry implements it.
	Metrics Metrics

	// Connections is the maximum number of open connections. Beyond it the one that has been idle longest is
	// closed. It is lowered to the descriptors that the host's budget has left, and Streams with it. Default
	// 4096.
	Connections int
	// Streams is the maximum number of WebSockets and event streams among them. Default 1024.
	Streams int
	// Uploads is the maximum number of modules that are verified and compiled at a time. Modules of at most
	// SmallModule bytes do not count; of these there may be four times as many. Uploads times ModuleBytes
	// also bounds the bytes of modules on their way in, and the same holds for small ones. Default 4.
	Uploads int
	// SmallModule is the size, in bytes, up to which a module is small. Default 1 MiB.
	SmallModule int64
	// ModuleBytes is the maximum size of an uploaded module, in bytes. Default: that of
	// service.DefaultLimits.
	ModuleBytes int64

	// HeaderTime is the maximum time for a request's headers. Default 10 s.
	HeaderTime time.Duration
	// BodyTime bounds how long the host waits for a request's body, or a message on a WebSocket. The body has
	// that time. Each 64 KiB that arrive add a second, but never to more than BodyTime from then on. Default
	// 30 s.
	BodyTime time.Duration
	// BodyRate is the rate limit of all bodies and messages together, in bytes per second; the first 16 KiB
	// of each do not count. Default 32 MiB for each processor.
	BodyRate int64
	// SocketBytes bounds what the system holds of one connection in each direction: bytes that have arrived
	// and were not read, or were written and not taken. It is a hint to the system, which may double it.
	// Default 128 KiB.
	SocketBytes int64
	// WriteTime bounds how long the host waits for a client to take what is written to it. The client has that
	// time. Each 64 KiB that it takes add a second, but never to more than WriteTime from then on. Default 20 s.
	WriteTime time.Duration
	// IdleTime is how long a connection may be without a request. Default 2 min.
	IdleTime time.Duration
	// RequestTime is the maximum wait for a command or query. Default 60 s.
	RequestTime time.Duration
	// PingTime is the interval at which something is sent on a stream without events, so that both sides
	// notice when the other is gone. Default 20 s.
	PingTime time.Duration

	// StallTime is how long a client may neither take nor send 64 KiB while others need the room that it
	// holds. Then its connection is closed. Default 2 s.
	StallTime time.Duration

	// MessageBytes is the maximum size of one message on a WebSocket. Default 4 MiB.
	MessageBytes int64
	// InFlight is the maximum number of commands and queries of one WebSocket without an answer. Default
	// 1024.
	InFlight int
	// Subscriptions is the maximum number of subscriptions of one WebSocket. Default 64.
	Subscriptions int
	// Credits is the maximum credit of one subscription, in events. Default 1,000,000.
	Credits int64

	linger time.Duration // streams.LingerTime, except in tests that must not depend on it
}

// Metrics counts what happens. It must not block, and is called concurrently.
type Metrics interface {
	// Request counts an answered request. Route is one of few values. Took is 0 for a stream.
	Request(route string, status int, took time.Duration)
	streams.Metrics
	// Refused counts a connection that was closed to make room: a "newcomer" or an "idle" one because there
	// were too many, a "stalled" one for its bytes, or a "working" one for its descriptor.
	Refused(which string)
	// Handler shows the metrics.
	Handler() http.Handler
}

type noMetrics struct{}

func (noMetrics) Request(string, int, time.Duration) {}
func (noMetrics) Stream(string) func()               { return func() {} }
func (noMetrics) Message(string)                     {}
func (noMetrics) Refused(string)                     {}
func (noMetrics) Handler() http.Handler              { return nil }

func (o Options) withDefaults() Options {
	o.Listen = or(o.Listen, "127.0.0.1:8080")
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Metrics == nil {
		o.Metrics = noMetrics{}
	}
	o.Connections = or(o.Connections, 4096)
	o.Streams = or(o.Streams, 1024)
	o.Uploads = or(o.Uploads, 4)
	o.SmallModule = or(o.SmallModule, 1<<20)
	o.ModuleBytes = or(o.ModuleBytes, service.DefaultLimits().ModuleBytes)
	o.HeaderTime = or(o.HeaderTime, 10*time.Second)
	o.BodyTime = or(o.BodyTime, 30*time.Second)
	o.BodyRate = or(o.BodyRate, int64(runtime.GOMAXPROCS(0))*32<<20)
	o.SocketBytes = or(o.SocketBytes, 128<<10)
	o.WriteTime = or(o.WriteTime, 20*time.Second)
	o.IdleTime = or(o.IdleTime, 2*time.Minute)
	o.RequestTime = or(o.RequestTime, time.Minute)
	o.PingTime = or(o.PingTime, 20*time.Second)
	o.StallTime = or(o.StallTime, 2*time.Second)
	o.MessageBytes = or(o.MessageBytes, 4<<20)
	o.InFlight = or(o.InFlight, 1024)
	o.Subscriptions = or(o.Subscriptions, 64)
	o.Credits = or(o.Credits, 1_000_000)
	o.linger = or(o.linger, streams.LingerTime)
	return o
}

// minToken is the minimum length of a token, in bytes: 16 random ones cannot be guessed.
const minToken = 16

// Validate reports everything that is wrong, for a host with a budget. [New] calls it, too; it is for callers
// that must know earlier.
func (o Options) Validate(b service.Budget) error {
	o = o.withDefaults()
	var bad []string
	check := func(name string, v, low, high int64) {
		if v < low || v > high {
			bad = append(bad, fmt.Sprintf("%s is %d; it may be %d to %d", name, v, low, high))
		}
	}
	period := func(name string, d time.Duration) {
		if d < time.Millisecond || d > 24*time.Hour {
			bad = append(bad, fmt.Sprintf("%s is %s; it may be 1ms to 24h", name, d))
		}
	}
	if o.Token != "" && len(o.Token) < minToken {
		bad = append(bad, fmt.Sprintf("token has %d bytes; it needs %d", len(o.Token), minToken))
	}
	for i := range len(o.Token) {
		if o.Token[i] <= ' ' || o.Token[i] > '~' {
			bad = append(bad, "token may have printable ASCII without space only")
			break
		}
	}
	for _, origin := range o.AllowedOrigins {
		if scheme, rest, ok := strings.Cut(origin, "://"); !ok || scheme == "" || rest == "" ||
			strings.ContainsAny(rest, "/ ") {
			bad = append(bad, fmt.Sprintf("allowed origin %q is not of the form https://name or https://name:port",
				origin))
		}
	}
	check("connections", int64(o.Connections), 1, 1<<20)
	check("streams", int64(o.Streams), 1, 1<<20)
	check("uploads", int64(o.Uploads), 1, 1<<10)
	check("small module bytes", o.SmallModule, 1, 1<<30)
	check("module bytes", o.ModuleBytes, 8, 1<<30)
	check("body rate", o.BodyRate, 1<<20, 1<<40)
	check("socket bytes", o.SocketBytes, 4<<10, 1<<30)
	check("message bytes", o.MessageBytes, 1<<10, 1<<30)
	bad = append(bad, o.unfit(b)...)
	check("in flight", int64(o.InFlight), 1, 1<<16)
	check("subscriptions", int64(o.Subscriptions), 1, 1<<16)
	check("credits", o.Credits, 1, 1<<40)
	period("header time", o.HeaderTime)
	period("body time", o.BodyTime)
	period("write time", o.WriteTime)
	period("idle time", o.IdleTime)
	period("request time", o.RequestTime)
	period("ping time", o.PingTime)
	period("stall time", o.StallTime)
	if len(bad) > 0 {
		return &service.Error{Op: "serve", Kind: service.KindInvalid, Message: "gateway options out of range",
			Reasons: bad}
	}
	return nil
}

// unfit lists the limits of single messages and answers that do not fit into the budget of a connection or of
// the host.
func (o *Options) unfit(b service.Budget) (bad []string) {
	if maximum := messageFits(b.ConnectionBytes); o.MessageBytes > maximum {
		bad = append(bad, fmt.Sprintf("message bytes is %d; with %d bytes for one connection it may be %d",
			o.MessageBytes, b.ConnectionBytes, maximum))
	}
	if maximum := b.FlightBytes / uploadPart / 3 * 2; o.ModuleBytes > maximum {
		bad = append(bad, fmt.Sprintf("module bytes is %d; with %d bytes in flight for all it may be %d", o.ModuleBytes,
			b.FlightBytes, maximum))
	}
	return bad
}

// messageFits is the largest message that a connection can carry. While its buffer grows, the old and the new
// buffer are in memory; while it is decoded, the message and what decoding takes.
func messageFits(connection int64) int64 {
	room := connection - service.CallRoom
	return min(room/3*2, max(room/5, room-int64(api.DecodingRoom(math.MaxInt))))
}

// withinDescriptors lowers the number of connections to the available descriptors, and that of streams
// further, so that streams cannot keep commands out.
func (o Options) withinDescriptors(host *budget.Account) Options {
	room := host.Room(budget.Descriptors)
	if int64(o.Connections) <= room {
		return o
	}
	connections, streams := int(max(1, room)), o.Streams
	streams = max(1, min(streams, connections*3/4))
	o.Logger.Warn("the process may have too few descriptors for so many connections; raise the limit of open files "+
		"for more",
		"connections", connections, "connections_wanted", o.Connections, "streams", streams, "streams_wanted",
		o.Streams,
		"descriptors", host.Limit(budget.Descriptors), "descriptors_in_use", host.Used(budget.Descriptors))
	o.Connections, o.Streams = connections, streams
	return o
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

package gateway

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/streams"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Options says where and how to serve. A zero field means its default.
type Options struct {
	// Listen is the address, host and port. Default 127.0.0.1:8080. Port 0 takes a
	// free one; see [Server.Addr].
	Listen string
	// Token is what clients must show; empty: none. It needs at least 16 bytes.
	Token string
	// Insecure allows to listen beyond loopback without a token.
	Insecure bool
	// AllowedHosts are names under which clients may reach a host without a token,
	// beside localhost and the loopback addresses.
	AllowedHosts []string
	// AllowedOrigins are origins, such as https://console.example, whose pages may
	// use the host from a browser, beside the host's own.
	AllowedOrigins []string

	// Logger gets what goes wrong, with the request's id. Default slog.Default().
	Logger *slog.Logger
	// Metrics is told what happens; nil: nobody is. *telemetry.Telemetry is one.
	Metrics Metrics

	// Connections bounds the connections that are open at a time. Beyond it the
	// one that has been idle for longest makes room. It is lowered to the descriptors that
	// the host's budget has room for, and Streams with it. Default 4096.
	Connections int
	// Streams bounds the WebSockets and event streams among them. Default 1024.
	Streams int
	// Uploads bounds the modules that are verified and compiled at a time, those of at
	// most SmallModule bytes not counted, of which there may be four times as many. It
	// bounds, too, the bytes of modules that are on their way in: by Uploads times
	// ModuleBytes, and for small ones likewise. Default 4.
	Uploads int
	// SmallModule is the size, in bytes, up to which a module is small. Default 1 MiB.
	SmallModule int64
	// ModuleBytes bounds an uploaded module. Default: that of service.DefaultLimits.
	ModuleBytes int64

	// HeaderTime bounds how long a request's headers may take. Default 10 s.
	HeaderTime time.Duration
	// BodyTime bounds how long a request's body, or a message on a WebSocket, may keep
	// the host waiting: it has that time, and each 64 KiB that have come give it a second
	// more, but never more than BodyTime from then on. Default 30 s.
	BodyTime time.Duration
	// BodyRate bounds how many bytes a second of bodies and messages come in, all together and
	// beyond the first 16 KiB of each. Default 32 MiB for each processor.
	BodyRate int64
	// SocketBytes bounds what the system holds of one connection, each way: bytes that have
	// come and were not read, or were written and not taken. It is a hint to the system, which
	// may double it. Default 128 KiB.
	SocketBytes int64
	// WriteTime bounds how long a client may keep the host waiting that does not take what is written to it: it has
	// that time, and each 64 KiB that it has taken give it a second more, but never more than WriteTime from then on.
	// Default 20 s.
	WriteTime time.Duration
	// IdleTime bounds how long a connection may be without a request. Default 2 min.
	IdleTime time.Duration
	// RequestTime bounds how long a command or query is waited for. Default 60 s.
	RequestTime time.Duration
	// PingTime is how often something is sent on a stream without events, so that
	// both sides find out when the other is gone. Default 20 s.
	PingTime time.Duration

	// StallTime is how long a client is borne that neither takes nor sends 64 KiB while
	// others need the room of what it holds. After it the connection is closed to make
	// room. Default 2 s.
	StallTime time.Duration

	// MessageBytes bounds one message on a WebSocket. Default 4 MiB.
	MessageBytes int64
	// InFlight bounds the commands and queries of one WebSocket that have no
	// answer yet. Default 1024.
	InFlight int
	// Subscriptions bounds the subscriptions of one WebSocket. Default 64.
	Subscriptions int
	// Credits bounds the credit that one subscription may hold, in events. Default 1,000,000.
	Credits int64

	linger time.Duration // streams.LingerTime, but for tests that must not depend on it
}

// Metrics is told what happens. It must not block, and is called concurrently.
type Metrics interface {
	// Request is an answered request. Route is one of few. Took is 0 for a stream.
	Request(route string, status int, took time.Duration)
	streams.Metrics
	// Refused is a connection closed to make room: a "newcomer" or an "idle" one, as there
	// were too many, a "stalled" one, for its bytes, or a "working" one, for its descriptor.
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

// minToken is the least length of a token, in bytes: 16 random ones cannot be guessed.
const minToken = 16

// Validate reports everything that is wrong at once, on a host with a budget. [New] does
// it too; who has something to lose by then asks before.
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

// unfit are the limits of what comes over one connection at a time that do not fit into
// its budget, or into that of the host.
func (o *Options) unfit(b service.Budget) (bad []string) {
	if most := messageFits(b.ConnectionBytes); o.MessageBytes > most {
		bad = append(bad, fmt.Sprintf("message bytes is %d; with %d bytes for one connection it may be %d",
			o.MessageBytes, b.ConnectionBytes, most))
	}
	if most := b.FlightBytes / uploadPart / 3 * 2; o.ModuleBytes > most {
		bad = append(bad, fmt.Sprintf("module bytes is %d; with %d bytes in flight for all it may be %d", o.ModuleBytes,
			b.FlightBytes, most))
	}
	return bad
}

// messageFits is the largest message that a connection can carry: when its buffer has
// grown, it and the one before are there; when it is decoded, it and what that takes.
func messageFits(connection int64) int64 {
	room := connection - service.CallRoom
	return min(room/3*2, max(room/5, room-int64(api.DecodingRoom(math.MaxInt))))
}

// withinDescriptors lowers the connections to what there are descriptors for, and the streams
// among them so far that they cannot keep commands out.
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

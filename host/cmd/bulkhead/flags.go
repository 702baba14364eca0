package main

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// budgetFlags bound what all services and connections hold together.
type budgetFlags struct {
	FlightBytes     size  `name:"max-flight-bytes" default:"256MiB" placeholder:"SIZE" help:"Maximum memory for data in flight on all connections: request bodies, messages, answers and events. Requests above it are refused as overloaded. Default ${default}."`
	ConnectionBytes size  `name:"max-connection-bytes" default:"8MiB" placeholder:"SIZE" help:"Maximum part of --max-flight-bytes that one connection may hold; it may be at most a tenth of that. A service whose limits do not fit into it is refused. Default ${default}."`
	Sandboxes       int64 `name:"max-sandboxes" placeholder:"N" help:"Maximum number of sandboxes of all services together. Each takes up to three memory mappings. Default: an eighth of vm.max_map_count, at most 4096."`
	SandboxBytes    size  `name:"max-sandbox-memory" placeholder:"SIZE" help:"Maximum memory of all sandboxes together: machine code, images, linear memory, call stacks, tables and resident entities. Default: half of the memory of the machine, or of its control group."`
	JournalMemory   size  `name:"max-journal-memory" placeholder:"SIZE" help:"Maximum memory of the journal's log and index: --journal-cache, and tables of the log in memory. If they need more, the host does not start, and says how much. Default: a quarter of the memory of the machine, or of its control group, at least 512MiB."`
	Disk            size  `name:"max-total-disk" placeholder:"SIZE" help:"Maximum size of all modules and logs on disk together. Only services whose log is smaller than the space left may use the last eighth. Default, and maximum: what they take now plus the free space of the disk, without --journal-reserve."`
	ModuleBytes     size  `name:"max-modules-bytes" placeholder:"SIZE" help:"Maximum size of all modules on disk together. Default: a quarter of the disk."`
	Modules         int64 `name:"max-modules" default:"10000" placeholder:"N" help:"Maximum number of modules on disk. Default ${default}."`
}

func (f *budgetFlags) budget() service.Budget {
	return service.Budget{
		FlightBytes: int64(f.FlightBytes), ConnectionBytes: int64(f.ConnectionBytes),
		Sandboxes: f.Sandboxes, SandboxBytes: int64(f.SandboxBytes), JournalMemoryBytes: int64(f.JournalMemory),
		DiskBytes: int64(f.Disk), ModuleBytes: int64(f.ModuleBytes), Modules: f.Modules,
	}
}

// gatewayFlags bound what clients can make the host do. The defaults are set here and passed on, so that the
// help shows the values in effect.
type gatewayFlags struct {
	Connections   int           `name:"max-connections" default:"4096" placeholder:"N" help:"Maximum number of open connections. One more closes the connection that has been idle the longest. Default ${default}."`
	Streams       int           `name:"max-streams" default:"1024" placeholder:"N" help:"Maximum number of open WebSockets and event streams. Default ${default}."`
	Uploads       int           `name:"max-uploads" default:"4" placeholder:"N" help:"Maximum number of modules that are uploaded, verified and compiled at the same time. Four times as many small modules may be. Default ${default}."`
	Message       size          `name:"max-message" default:"4MiB" placeholder:"SIZE" help:"Maximum size of one WebSocket message. Default ${default}."`
	InFlight      int           `name:"max-in-flight" default:"1024" placeholder:"N" help:"Maximum number of commands and queries of one WebSocket that wait for an answer. Default ${default}."`
	Subscriptions int           `name:"max-subscriptions" default:"64" placeholder:"N" help:"Maximum number of subscriptions of one WebSocket. Default ${default}."`
	Credits       int64         `name:"max-credits" default:"1000000" placeholder:"N" help:"Maximum number of events that one subscription may request in advance. Default ${default}."`
	HeaderTime    time.Duration `name:"header-timeout" default:"10s" placeholder:"TIME" help:"How long a client may take to send the headers of a request. Default ${default}."`
	BodyTime      time.Duration `name:"body-timeout" default:"30s" placeholder:"TIME" help:"How long a client may take to send the body of a request or a WebSocket message. Each 64KiB received add one second, but the time left is never more than TIME. Default ${default}."`
	BodyRate      size          `name:"max-body-rate" placeholder:"SIZE" help:"Maximum number of bytes per second that the host reads from all request bodies and messages together. The first 16KiB of each are not counted. Default: 32MiB per processor."`
	Socket        size          `name:"socket-buffer" default:"128KiB" placeholder:"SIZE" help:"Size of the operating system's receive and send buffers of one connection. Larger buffers speed up large bodies and answers over long distances. Default ${default}."`
	WriteTime     time.Duration `name:"write-timeout" default:"20s" placeholder:"TIME" help:"How long a client may take nothing of what is written to it. Each 64 KiB that it takes give it one more second. Default ${default}."`
	IdleTime      time.Duration `name:"idle-timeout" default:"2m" placeholder:"TIME" help:"How long a connection may stay open without a request. Default ${default}."`
	RequestTime   time.Duration `name:"request-timeout" default:"60s" placeholder:"TIME" help:"How long a request waits for the outcome of a command or query. Default ${default}."`
	StallTime     time.Duration `name:"stall-timeout" default:"2s" placeholder:"TIME" help:"How long a client may transfer less than 64KiB while other clients need the memory that it holds. After that its connection is closed. Default ${default}."`
	PingTime      time.Duration `name:"ping-interval" default:"20s" placeholder:"TIME" help:"Time between pings on a stream that is otherwise silent. Default ${default}."`
}

func (f *gatewayFlags) options(c *serveCmd, logger *slog.Logger) gateway.Options {
	return gateway.Options{
		Listen: c.Listen, Token: c.Token, Insecure: c.Insecure, AllowedHosts: c.AllowHost,
		AllowedOrigins: c.AllowOrigin, Logger: logger,
		Connections: f.Connections, Streams: f.Streams, Uploads: f.Uploads, SmallModule: int64(c.Compile.Small),
		ModuleBytes: int64(c.Limits.ModuleBytes),
		HeaderTime:  f.HeaderTime, BodyTime: f.BodyTime, WriteTime: f.WriteTime, IdleTime: f.IdleTime,
		RequestTime: f.RequestTime, PingTime: f.PingTime, StallTime: f.StallTime,
		BodyRate: int64(f.BodyRate), SocketBytes: int64(f.Socket),
		MessageBytes: int64(f.Message), InFlight: f.InFlight, Subscriptions: f.Subscriptions, Credits: f.Credits,
	}
}

// compileFlags bound the resources for compiling modules.
type compileFlags struct {
	Small  size          `name:"small-module" default:"1MiB" placeholder:"SIZE" help:"Maximum size of a small module. Small modules never wait until larger ones are uploaded or compiled. Default ${default}."`
	Base   time.Duration `name:"compile-base" default:"10s" placeholder:"TIME" help:"Maximum processor time for compiling a module of any size; --compile-per-mib is added to it. --limit-compile-time applies as well. Default ${default}."`
	PerMiB time.Duration `name:"compile-per-mib" default:"5s" placeholder:"TIME" help:"Processor time that each MiB of a module adds to --compile-base. Default ${default}."`
}

// startFlags are about the starts of services.
type startFlags struct {
	Places   int           `name:"places" default:"4" placeholder:"N" help:"Maximum number of services that start at the same time. It applies to quick and to slow starts separately. Default ${default}."`
	Retry    time.Duration `name:"retry" default:"250ms" placeholder:"TIME" help:"Time before the first retry of a service or sandbox that failed to start. Each further wait is twice as long. Default ${default}."`
	RetryMax time.Duration `name:"retry-max" default:"1m" placeholder:"TIME" help:"Maximum time between two retries of a service or sandbox that failed to start. Default ${default}."`
	Rarely   time.Duration `name:"retry-rare" default:"10m" placeholder:"TIME" help:"Time between two retries of a service whose module is refused, or fails while it starts. Default ${default}."`
}

// readFlags bound the cost of reading logs.
type readFlags struct {
	Readers int64 `name:"max-readers" placeholder:"N" help:"Maximum number of readers that read logs at the same time, in turns of about a millisecond: pages of events, subscribers that catch up, backups. Commands never wait for readers. Default: the number of processors minus one, at least one."`
	Waiting int   `name:"max-waiting-readers" default:"131072" placeholder:"N" help:"Maximum number of readers that wait for their turn. Further readers are refused as overloaded. Default ${default}."`
	Recent  size  `name:"recent-events" default:"64MiB" placeholder:"SIZE" help:"Memory for the latest events of all services, which subscribers get without reading a log. One service gets at most 16MiB of it. When it is full, the service with the most loses its oldest events first. Default ${default}."`
	Shared  size  `name:"shared-reads" default:"32MiB" placeholder:"SIZE" help:"Memory for events that were read from logs recently, so that subscribers at the same position share one read. 0 disables it. Default ${default}."`
}

// journalFlags bound the journal.
type journalFlags struct {
	PendingCommits int           `name:"pending-commits" default:"65536" placeholder:"N" help:"Maximum number of commits on their way to the disk. Further commands wait. Default ${default}."`
	PendingBytes   size          `name:"pending" default:"64MiB" placeholder:"SIZE" help:"Maximum size of all commits on their way to the disk together. Further commands wait. Default ${default}."`
	BatchBytes     size          `name:"batch" default:"64KiB" placeholder:"SIZE" help:"Maximum size of one batch of a log, before compression. A larger commit is written as a batch of its own. Default ${default}."`
	Codec          journal.Codec `name:"codec" default:"s2" enum:"s2,none" placeholder:"CODEC" help:"Compression of new batches on disk: s2 or none. Existing batches stay as they are. Default ${default}."`
	GroupBytes     size          `name:"group" default:"4MiB" placeholder:"SIZE" help:"Maximum size of the batches that share one sync, before compression. Default ${default}."`
	GroupCommits   int           `name:"group-commits" default:"8192" placeholder:"N" help:"Maximum number of commits that share one sync. Default ${default}."`
	Answers        time.Duration `name:"answers" default:"24h" placeholder:"TIME" help:"How long the journal keeps the answer to a command id, so that the same command can be sent again safely. Default ${default}."`
	Reserve        size          `name:"reserve" default:"1GiB" placeholder:"SIZE" help:"Free disk space that is kept in reserve. When less is free, commands are refused and only reads continue, so that no write meets a full disk. 0 disables it. Default ${default}."`
	Cache          size          `name:"cache" default:"128MiB" placeholder:"SIZE" help:"Memory for the journal's index: blocks that were read recently, filters, and entries that are not written yet. It is a part of --max-journal-memory. At least 8MiB is used. Default ${default}."`
	Versions       int           `name:"versions" default:"1048576" placeholder:"N" help:"Maximum number of entities whose version is kept in memory, at about 50 bytes each. Default ${default}."`
}

// orNone converts a size for [host.Options], where 0 means the default and a negative value none.
func orNone(s size) int64 { return cmp.Or(int64(s), -1) }

func (f *journalFlags) options() commitlog.Options {
	return commitlog.Options{
		MaxPendingCommits: f.PendingCommits, MaxPendingBytes: int64(f.PendingBytes), MaxBatchBytes: int(f.BatchBytes),
		Codec:         f.Codec,
		MaxGroupBytes: int(f.GroupBytes), MaxGroupCommits: f.GroupCommits, AnswerWindow: f.Answers,
		VersionCache: f.Versions,
	}
}

package main

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// budgetFlags bound what all services and connections hold together.
type budgetFlags struct {
	FlightBytes     size  `name:"max-flight-bytes" default:"256MiB" placeholder:"SIZE" help:"Memory for the bodies, messages, answers and events of all connections that are on their way in or out; what is beyond is refused as overloaded. Default ${default}."`
	ConnectionBytes size  `name:"max-connection-bytes" default:"8MiB" placeholder:"SIZE" help:"The part of it that one connection may hold, at most a tenth; limits of services that do not fit into it are refused. Default ${default}."`
	Sandboxes       int64 `name:"max-sandboxes" placeholder:"N" help:"Bounds the sandboxes of all services together, of which each takes up to three mappings of memory. Default: an eighth of vm.max_map_count, at most 4096."`
	SandboxBytes    size  `name:"max-sandbox-memory" placeholder:"SIZE" help:"Bounds the memory of all sandboxes together: machine code, images, linear memory, call stacks, tables and resident entities. Default: half of the memory of the machine or of the control group."`
	Disk            size  `name:"max-total-disk" placeholder:"SIZE" help:"Bounds modules and logs on disk, together; the last eighth is for services that have no more than what is left of it. Default, and at most: what they have and the disk has left, apart from --journal-reserve."`
	ModuleBytes     size  `name:"max-modules-bytes" placeholder:"SIZE" help:"Modules on disk, together. Default: a quarter of the disk."`
	Modules         int64 `name:"max-modules" default:"10000" placeholder:"N" help:"How many modules may be on disk. Default ${default}."`
}

func (f *budgetFlags) budget() service.Budget {
	return service.Budget{
		FlightBytes: int64(f.FlightBytes), ConnectionBytes: int64(f.ConnectionBytes),
		Sandboxes: f.Sandboxes, SandboxBytes: int64(f.SandboxBytes), DiskBytes: int64(f.Disk), ModuleBytes: int64(f.ModuleBytes), Modules: f.Modules,
	}
}

// gatewayFlags bound what outsiders can make the host do. Each default is given
// here and passed on, so that the help shows what holds.
type gatewayFlags struct {
	Connections   int           `name:"max-connections" default:"4096" placeholder:"N" help:"Open connections; beyond it the one idle for longest makes room. Default ${default}."`
	Streams       int           `name:"max-streams" default:"1024" placeholder:"N" help:"WebSockets and event streams among them. Default ${default}."`
	Uploads       int           `name:"max-uploads" default:"4" placeholder:"N" help:"Modules that are verified and compiled at a time, and four times as many small ones; room for as many bodies on their way in. Default ${default}."`
	Message       size          `name:"max-message" default:"4MiB" placeholder:"SIZE" help:"One message on a WebSocket. Default ${default}."`
	InFlight      int           `name:"max-in-flight" default:"1024" placeholder:"N" help:"Commands and queries of one WebSocket without an answer. Default ${default}."`
	Subscriptions int           `name:"max-subscriptions" default:"64" placeholder:"N" help:"Subscriptions of one WebSocket. Default ${default}."`
	Credits       int64         `name:"max-credits" default:"1000000" placeholder:"N" help:"Events that one subscription may have asked for in advance. Default ${default}."`
	HeaderTime    time.Duration `name:"header-timeout" default:"10s" placeholder:"TIME" help:"Time for a request's headers. Default ${default}."`
	BodyTime      time.Duration `name:"body-timeout" default:"30s" placeholder:"TIME" help:"How long a request's body, or a message on a WebSocket, may keep the host waiting: it has that time, and each 64KiB that have come give it a second more, but never more than TIME from then on. Default ${default}."`
	BodyRate      size          `name:"max-body-rate" placeholder:"SIZE" help:"Bytes a second of bodies and messages, all together and beyond the first 16KiB of each; they come in no faster. Default: 32MiB for each processor."`
	Socket        size          `name:"socket-buffer" default:"128KiB" placeholder:"SIZE" help:"What the system holds of one connection, each way. More is faster for large bodies and answers over long distances. Default ${default}."`
	WriteTime     time.Duration `name:"write-timeout" default:"20s" placeholder:"TIME" help:"Time to write an answer or a piece of a stream. Default ${default}."`
	IdleTime      time.Duration `name:"idle-timeout" default:"2m" placeholder:"TIME" help:"Time of a connection without a request. Default ${default}."`
	RequestTime   time.Duration `name:"request-timeout" default:"60s" placeholder:"TIME" help:"Time that a command or query is waited for. Default ${default}."`
	StallTime     time.Duration `name:"stall-timeout" default:"2s" placeholder:"TIME" help:"Time that a client is borne that neither takes nor sends 64KiB while others need the memory of what it holds; then its connection is closed. Default ${default}."`
	PingTime      time.Duration `name:"ping-interval" default:"20s" placeholder:"TIME" help:"Time between signs of life on a silent stream. Default ${default}."`
}

func (f *gatewayFlags) options(c *serveCmd, logger *slog.Logger) gateway.Options {
	return gateway.Options{
		Listen: c.Listen, Token: c.Token, Insecure: c.Insecure, AllowedHosts: c.AllowHost, AllowedOrigins: c.AllowOrigin, Logger: logger,
		Connections: f.Connections, Streams: f.Streams, Uploads: f.Uploads, SmallModule: int64(c.Compile.Small), ModuleBytes: int64(c.Limits.ModuleBytes),
		HeaderTime: f.HeaderTime, BodyTime: f.BodyTime, WriteTime: f.WriteTime, IdleTime: f.IdleTime, RequestTime: f.RequestTime, PingTime: f.PingTime, StallTime: f.StallTime,
		BodyRate: int64(f.BodyRate), SocketBytes: int64(f.Socket),
		MessageBytes: int64(f.Message), InFlight: f.InFlight, Subscriptions: f.Subscriptions, Credits: f.Credits,
	}
}

// compileFlags bound what compiling modules takes of the host.
type compileFlags struct {
	Small  size          `name:"small-module" default:"1MiB" placeholder:"SIZE" help:"Modules up to this size never wait for larger ones to be uploaded or compiled. Default ${default}."`
	Base   time.Duration `name:"compile-base" default:"10s" placeholder:"TIME" help:"Processor time that compiling any module may take; --compile-per-mib comes to it, and --limit-compile-time holds beside it. Default ${default}."`
	PerMiB time.Duration `name:"compile-per-mib" default:"5s" placeholder:"TIME" help:"Processor time that compiling a module may take for each MiB of it, beyond --compile-base. Default ${default}."`
}

// startFlags are about the starts of services.
type startFlags struct {
	Places   int           `name:"places" default:"4" placeholder:"N" help:"Services that are started at a time: so many that are quick to start, and so many slow ones beside them. Default ${default}."`
	Retry    time.Duration `name:"retry" default:"250ms" placeholder:"TIME" help:"First wait before a service or a sandbox that could not be started is tried again; each further wait is twice as long. Default ${default}."`
	RetryMax time.Duration `name:"retry-max" default:"1m" placeholder:"TIME" help:"Longest wait before a service or a sandbox that could not be started is tried again. Default ${default}."`
	Rarely   time.Duration `name:"retry-rare" default:"10m" placeholder:"TIME" help:"Wait before a service is tried again whose module is refused or breaks while it starts. Default ${default}."`
}

// readFlags bound what those cost who read logs.
type readFlags struct {
	Readers int64 `name:"max-readers" placeholder:"N" help:"How many may read logs at a time, in turns of about a millisecond: pages of events, subscribers that are behind, backups. Others wait, and what commands need does not. Default: one fewer than there are processors, and at least one."`
	Waiting int   `name:"max-waiting-readers" default:"131072" placeholder:"N" help:"How many may wait for their turn to read a log; more are refused as overloaded. Default ${default}."`
	Recent  size  `name:"recent-events" default:"64MiB" placeholder:"SIZE" help:"Memory for the latest events of all services, which subscribers get without reading a log; one service has at most 16 MiB, and those with most lose the oldest first. Default ${default}."`
	Shared  size  `name:"shared-reads" default:"32MiB" placeholder:"SIZE" help:"Memory for events that were read from logs lately, so that subscribers that come to the same place read them once; 0 is none. Default ${default}."`
}

// journalFlags bound the journal.
type journalFlags struct {
	PendingCommits int           `name:"pending-commits" default:"65536" placeholder:"N" help:"Commits on their way to the disk; beyond it commands wait. Default ${default}."`
	PendingBytes   size          `name:"pending" default:"64MiB" placeholder:"SIZE" help:"Their size. Default ${default}."`
	BatchBytes     size          `name:"batch" default:"64KiB" placeholder:"SIZE" help:"One batch of a log, before it is packed; a bigger commit is a batch of its own. Default ${default}."`
	Codec          journal.Codec `name:"codec" default:"s2" enum:"s2,none" placeholder:"CODEC" help:"How batches are packed on the disk, s2 or none; what is there stays as it is. Default ${default}."`
	GroupBytes     size          `name:"group" default:"4MiB" placeholder:"SIZE" help:"What shares one sync, before it is packed. Default ${default}."`
	GroupCommits   int           `name:"group-commits" default:"8192" placeholder:"N" help:"Commits that share one sync. Default ${default}."`
	Answers        time.Duration `name:"answers" default:"24h" placeholder:"TIME" help:"How long the answer to a command id is kept. Default ${default}."`
	Reserve        size          `name:"reserve" default:"1GiB" placeholder:"SIZE" help:"Room on the disk below which commands are refused and only reading goes on, so that no write meets a full disk; 0 is none. Default ${default}."`
	Cache          size          `name:"cache" default:"32MiB" placeholder:"SIZE" help:"Memory for blocks of the index that were read lately; 0 is none. Default ${default}."`
	Versions       int           `name:"versions" default:"1048576" placeholder:"N" help:"Entities whose version is kept in memory, 50 bytes each. Default ${default}."`
}

// orNone is a size as [host.Options] has it, where 0 is the default and a negative one is none.
func orNone(s size) int64 { return cmp.Or(int64(s), -1) }

func (f *journalFlags) options() journal.Options {
	return journal.Options{
		MaxPendingCommits: f.PendingCommits, MaxPendingBytes: int64(f.PendingBytes), MaxBatchBytes: int(f.BatchBytes), Codec: f.Codec,
		MaxGroupBytes: int(f.GroupBytes), MaxGroupCommits: f.GroupCommits, AnswerWindow: f.Answers, VersionCache: f.Versions,
	}
}

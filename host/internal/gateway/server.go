// Package gateway lets clients use a host over HTTP and WebSocket. It turns requests into calls of the host,
// and results into the JSON of package api. It keeps clients within their bounds. It does not know how
// services run.
//
// No client is trusted. Each read and write has a deadline. Each body, each queue and the number of
// connections is bounded. Of an error a client sees only the part that is meant for clients. STREAM.md
// describes the WebSocket protocol for authors of clients.
//
// What it needs of a host is a set of small interfaces, each beside the routes that use it. An operation of
// the host becomes a line in one of them and a route.
package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/flight"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/limitlistener"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway/streams"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"golang.org/x/time/rate"
)

// maxHeader is the maximum size of a request's line and headers, in bytes: room for 16 KiB of escaped
// metadata, a key and a cursor.
const maxHeader = 64 << 10

// Host is all that the gateway needs of a host; *host.Host implements it. Errors that a client can do
// something about are *service.Error. All methods are safe for concurrent use; those without a context do not
// block.
type Host interface {
	commander
	deployer
	moduleStore
	observer
	reader
	keeper
	quarantiner
	meter
	owner
}

// owner has the resources that connections use.
type owner interface {
	// Budget has the host's bounds, and Account counts against them.
	Budget() service.Budget
	Account() *budget.Account
	// Turn makes a place for milliseconds of work for a client of a service or, without a name, for a client.
	Turn(ctx context.Context, name service.Name) service.Turn
	// Ready returns nil if the host accepts commands, and States the state of each service.
	Ready() error
	States() map[service.Name]service.State
}

// Server serves a host to clients. It keeps the contract of package lifecycle.
type Server struct {
	commander  commander
	deployer   deployer
	modules    moduleStore
	observer   observer
	reader     reader
	keeper     keeper
	quarantine quarantiner
	meter      meter
	owner      owner

	document []byte // describes the interface
	// describing has room for one document of a service that is being made.
	describing chan struct{}
	options    Options
	access     *access
	log        *slog.Logger
	metrics    Metrics

	life     lifecycle.Life
	http     *http.Server
	addr     net.Addr // set by Start, as is listener
	listener *limitlistener.Listener
	stopping context.Context
	stop     context.CancelFunc // first stage of Stop: streams end, no new ones begin
	cut      context.Context
	cutOff   context.CancelFunc // last stage: everything left ends; parent of all requests

	gate     sync.RWMutex // guards closed, and joining handlers
	closed   bool         // no new handlers
	handlers sync.WaitGroup

	streams *streams.Streams
	uploads *uploads        // modules on their way in
	traffic *flight.Traffic // turns and rate of large bodies, messages and answers
	flights *flight.Accounts
	backups chan struct{}   // has one for each backup on its way out
	files   *budget.Account // accounts for the connections' descriptors

	refusals *refusals // limits the log lines about them

	run      string // distinguishes request ids of this server from those of others
	requests atomic.Uint64
}

// New makes a server; Start makes it serve.
func New(h Host, o Options) (*Server, error) {
	o = o.withDefaults()
	b := h.Budget()
	if err := o.Validate(b); err != nil {
		return nil, err
	}
	o = o.withinDescriptors(h.Account())
	a, err := newAccess(o)
	if err != nil {
		return nil, err
	}
	s := &Server{
		commander: h, deployer: h, modules: h, observer: h, reader: h, keeper: h, meter: h, owner: h, quarantine: h,
		document: api.OpenAPI(), describing: make(chan struct{}, 1),
		options: o, access: a, log: o.Logger, metrics: o.Metrics, refusals: newRefusals(),
		uploads: newUploads(h.Account(), o), backups: make(chan struct{}, maxBackups),
		traffic: &flight.Traffic{Turns: h, Rate: rate.NewLimiter(rate.Limit(o.BodyRate), flight.BodyBurst),
			BodyTime: o.BodyTime},
		flights: flight.NewAccounts(flight.Options{
			Host: h.Account(), ConnectionBytes: b.ConnectionBytes, StallTime: o.StallTime, Logger: o.Logger,
			Cut: func() { o.Metrics.Refused("stalled") },
		}),
		files: h.Account().Child("connections' descriptors", nil),
	}
	var run [4]byte
	_, _ = rand.Read(run[:]) // never fails
	s.run = hex.EncodeToString(run[:])
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.cut, s.cutOff = context.WithCancel(context.Background())
	s.streams = streams.New(h, s.traffic, o.Metrics, streams.Options{
		Streams: o.Streams, MessageBytes: o.MessageBytes, InFlight: o.InFlight, Subscriptions: o.Subscriptions,
		Credits: o.Credits, PingTime: o.PingTime, WriteTime: o.WriteTime, RequestTime: o.RequestTime, Linger: o.linger,
		Stopping: s.stopping, Cut: s.cut,
	})
	s.http = &http.Server{
		Handler: s.handler(), ConnContext: limitlistener.WithConn,
		BaseContext:       func(net.Listener) context.Context { return s.cut },
		ReadHeaderTimeout: o.HeaderTime, IdleTimeout: o.IdleTime, MaxHeaderBytes: maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Start listens, and returns when connections are accepted.
func (s *Server) Start(ctx context.Context) error {
	return s.life.Start(func() error {
		addr, err := net.ResolveTCPAddr("tcp", s.options.Listen)
		if err != nil {
			return service.Errorf(service.KindInvalid, "cannot listen on %q: %w", s.options.Listen, err)
		}
		if err := mayListen(addr, s.options); err != nil {
			return err
		}
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", addr.String())
		if err != nil {
			return service.Errorf(service.KindUnavailable, "cannot listen on %q: %w", s.options.Listen, err)
		}
		s.addr = l.Addr()
		s.listener = limitlistener.New(l, limitlistener.Options{
			Limit: s.options.Connections, SocketBytes: int(s.options.SocketBytes), StallTime: s.options.StallTime,
			Flights: s.flights, Files: s.files, Closed: s.metrics.Refused, Refuse: fullAnswer, Rewrite: s.rewrite,
		})
		s.life.Go(func() { s.listener.Watch(s.stopping) })
		s.life.Go(func() {
			err := s.http.Serve(s.listener)
			if !errors.Is(err, http.ErrServerClosed) {
				s.log.Error("gateway stopped listening", "err", err)
			}
		})
		return nil
	})
}

// Addr is the server's address, after Start.
func (s *Server) Addr() net.Addr { return s.addr }

// URL is the server's URL for clients on this machine, after Start.
func (s *Server) URL() string {
	host, port, _ := net.SplitHostPort(s.addr.String()) // a listener's address has both
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Stop accepts no new connections, lets requests in flight finish, and ends streams with a close message.
// When ctx ends it closes what is left. It returns when all goroutines of the server have ended; if something
// was cut off, it returns ctx's error. The host must still be running.
func (s *Server) Stop(ctx context.Context) error {
	return s.life.Stop(ctx, func(ctx context.Context, started bool) error {
		s.stop()
		defer s.files.Close()
		defer s.cutOff()
		inTime := context.AfterFunc(ctx, s.cutOff)
		var err error
		if started {
			if err = s.http.Shutdown(ctx); err != nil {
				err = errors.Join(err, s.http.Close())
			}
		}
		s.gate.Lock()
		s.closed = true
		s.gate.Unlock()
		s.handlers.Wait() // including WebSockets; each ends soon after cutOff
		if !inTime() && err == nil {
			err = context.Cause(ctx) // Shutdown may not have noticed what was cut off
		}
		return errors.Join(err, s.life.Wait(context.WithoutCancel(ctx)))
	})
}

// enter registers a handler; call handlers.Done at its end. It fails when the server has stopped.
func (s *Server) enter() bool {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return false
	}
	s.handlers.Add(1)
	return true
}

func (s *Server) requestID() string {
	return s.run + "-" + strconv.FormatUint(s.requests.Add(1), 36)
}

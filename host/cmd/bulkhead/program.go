package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gateway"
	"github.com/bulkhead-wasm/bulkhead/host/internal/telemetry"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// programOptions are validated values, independent of the command line.
type programOptions struct {
	host     host.Options // without the compiler
	gateway  gateway.Options
	dropped  func() uint64 // number of dropped log lines; may be nil
	stopTime time.Duration // for commands in flight; default 30 s
	// prepare, if set, is called with the open host before startProgram returns. The gateway listens by then,
	// but reports that it is not ready.
	prepare func(*host.Host) error
}

// validate checks that the budget fits the limits that services get under the host's ceilings.
func (o *programOptions) validate() error {
	all := o.host.Budget.WithDefaults()
	limits, _ := o.host.Ceiling.WithDefaults().Defaults()
	return errors.Join(all.Validate(), all.Fits(o.host.Limits.Over(limits)), o.gateway.Validate(all))
}

// program is a running host with its gateway. Tests start it on a temporary
// directory and port 0.
type program struct {
	host     *host.Host
	server   *gateway.Server
	logger   *slog.Logger
	stopTime time.Duration
	stopOnce sync.Once
	stopErr  error
}

// startProgram opens the host on its directory and starts to serve.
func startProgram(ctx context.Context, o programOptions) (*program, error) {
	if o.stopTime == 0 {
		o.stopTime = 30 * time.Second
	}
	// Before anything is created on disk.
	if err := o.validate(); err != nil {
		return nil, err
	}
	compiler, err := compiler()
	if err != nil {
		return nil, err
	}
	o.host.Compiler, o.host.StartWait = compiler, o.gateway.RequestTime
	h, err := host.Open(ctx, o.host)
	if err != nil {
		return nil, err
	}
	o.gateway.Logger = h.Logger()
	o.gateway.Metrics = telemetry.New(telemetry.Options{Version: version, Host: h, LogDropped: o.dropped})
	b := &preparedHost{Host: h}
	b.preparing.Store(o.prepare != nil)
	s, err := gateway.New(b, o.gateway)
	if err == nil {
		err = s.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, h.Close(ctx))
	}
	p := &program{host: h, server: s, logger: h.Logger(), stopTime: o.stopTime}
	if o.prepare != nil {
		if err := o.prepare(h); err != nil {
			return nil, errors.Join(err, p.Close())
		}
		b.preparing.Store(false)
	}
	return p, nil
}

// preparedHost is a host that is not ready before prepare has returned.
type preparedHost struct {
	*host.Host
	preparing atomic.Bool
}

// Ready is like the host's. Clients that wait for the host also wait for the deployments of its start;
// requests to other services are served meanwhile.
func (h *preparedHost) Ready() error {
	if h.preparing.Load() {
		return service.Errorf(service.KindUnavailable, "the modules that the host was started with are being deployed")
	}
	return h.Host.Ready()
}

// Address is the address of the program's listener.
func (p *program) Address() string { return p.server.Addr().String() }

// Run serves until ctx ends, then stops in stages and reports each. It does not end when the journal fails,
// which the host opens again, or on a hangup, which it logs. It returns nil if it stopped cleanly.
func (p *program) Run(ctx context.Context, hangups <-chan os.Signal, stage func(string)) error {
	look := time.NewTicker(idleLook)
	defer look.Stop()
	var m idleMemory
	for {
		select {
		case <-ctx.Done():
			return p.stop(stage)
		case <-look.C:
			m.release()
		case <-hangups:
			p.logger.Info("SIGHUP has no effect: the settings are those of the start; SIGTERM stops the host")
		}
	}
}

// Close stops the program like Run, without reports. It may be called after Run.
func (p *program) Close() error { return p.stop(func(string) {}) }

// stop refuses new requests, and lets those in flight finish; then it closes the host, whose journal closes
// last. Each stage has its own time, so that one that hangs does not prevent the journal from closing.
func (p *program) stop(stage func(string)) error {
	p.stopOnce.Do(func() {
		timed := func(name string, f func(context.Context) error) error {
			stage(name)
			ctx, cancel := context.WithTimeout(context.Background(), p.stopTime)
			defer cancel()
			if err := f(ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		}
		p.stopErr = errors.Join(
			timed("no new requests, finishing those in flight", p.server.Stop),
			timed("draining services and closing the journal", p.host.Close),
		)
	})
	return p.stopErr
}

// deployFile deploys the module in a file as the service that its manifest names.
func deployFile(ctx context.Context, h *host.Host, file string, bar *progress) (service.Status, error) {
	module, err := os.ReadFile(file)
	if err != nil {
		return service.Status{}, err
	}
	defer bar.done()
	m, err := h.Upload(ctx, module,
		func(p service.Progress) { bar.at(p.Stage+" "+relative(file), p.Done, p.Total, bytesUnit) })
	if err != nil {
		return service.Status{}, err
	}
	return h.Deploy(ctx, service.Deployment{Service: service.Name(m.Manifest.Service), Digest: m.Digest})
}

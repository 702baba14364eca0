package host

import (
	"cmp"
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/registry"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox/compile"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Upload verifies, compiles and stores a module, and returns what it is. A module that breaks rules is
// refused with KindBadModule and all violations in Reasons; then nothing is stored. Uploading a stored module
// changes nothing. progress, if not nil, is called on Upload's goroutine and must not block for long.
func (h *Host) Upload(ctx context.Context, module []byte, progress func(service.Progress)) (service.Module, error) {
	if progress == nil {
		progress = func(service.Progress) {}
	}
	c, err := h.open()
	if err != nil {
		return service.Module{}, err
	}
	digest := service.DigestOf(module)
	defer c.catalog.Hold(digest)()
	if err := c.catalog.MayPut(digest, int64(len(module))); err != nil {
		return service.Module{}, err
	}
	p, err := h.runtime.Compile(ctx, "", module, h.opt.Limits, h.opt.Settings,
		func(s compile.Stage, done, total int64) {
			progress(service.Progress{Stage: string(s), Done: done, Total: total})
		})
	if err != nil {
		return service.Module{}, err
	}
	m := p.Module()
	if err := p.Close(ctx); err != nil {
		return service.Module{}, err
	}
	progress(service.Progress{Stage: string(registry.StageStoring), Total: m.Size})
	if _, err := c.catalog.Put(module); err != nil {
		return service.Module{}, err
	}
	progress(service.Progress{Stage: string(registry.StageStoring), Done: m.Size, Total: m.Size})
	h.opt.Logger.Info("a module was stored", "module", digest, "of", m.Manifest.Service, "bytes", m.Size)
	return m, nil
}

// Deploy makes a module run as a service, and returns the service's status when it runs. If the service is
// running already, Deploy starts the new module, lets the old one finish its commands, and then swaps them:
// no command is lost, and none is handled twice. Deploying what already runs changes nothing. If Deploy
// fails, the service is unchanged, unless the error is of KindUnknown.
//
// Before the swap, while the old module serves, the new one is verified against the service's log; see
// [service.Verify]. A module that cannot read what is in the log is refused with KindConflicting. The status
// has what the verification has shown. It also warns of stored events with members that the new module lacks
// or declares with other types, and of states that both modules encode differently.
func (h *Host) Deploy(ctx context.Context, d service.Deployment) (service.Status, error) {
	var before abi.Manifest
	if c, err := h.open(); err == nil {
		if old, err := c.registry.Get(d.Service); err == nil {
			before = old.Status().Manifest
		}
	}
	begun := time.Now()
	c, svc, shown, err := h.deploy(ctx, &d, false)
	about := []any{"service", string(d.Service), "module", d.Digest, "took",
		time.Since(begun).Round(time.Millisecond)}
	if err != nil {
		if c != nil {
			h.opt.Logger.Warn("a deployment failed", append(about, "error", err)...)
		}
		return service.Status{}, err
	}
	st := h.status(c, svc)
	h.opt.Logger.Info("a service was deployed", append(about, "shards", len(st.Shards), "position", uint64(st.Head))...)
	st.Verification = shown
	for _, w := range service.ChangedEvents(before, st.Manifest) {
		st.Warnings = append(st.Warnings, w)
		h.opt.Logger.Warn("a deployment changes the schema of stored events", "service", string(d.Service), "change", w)
	}
	if w := shown.Warning(); w != "" {
		st.Warnings = append(st.Warnings, w)
		h.opt.Logger.Warn("a deployed module makes other states of the same events", "service", string(d.Service),
			"difference", w)
	}
	return st, nil
}

// Verify does everything that Deploy does before the service is changed, and changes nothing: it builds the
// module, and verifies it against the service's log. An error is the one with which Deploy would refuse the
// module. A service without a log accepts every good module.
func (h *Host) Verify(ctx context.Context, d service.Deployment) (service.Verification, error) {
	_, _, shown, err := h.deploy(ctx, &d, true)
	if err != nil {
		return service.Verification{}, err
	}
	return *shown, nil
}

// deploy checks a deployment and makes it, or only verifies it. It sets the digest. The core is nil if the
// deployment was refused before it began.
func (h *Host) deploy(
	ctx context.Context, d *service.Deployment, dry bool,
) (*core, *registry.Service, *service.Verification, error) {
	refused := func(err error) (*core, *registry.Service, *service.Verification, error) { return nil, nil, nil, err }
	if _, err := service.ParseName(string(d.Service)); err != nil {
		return refused(err)
	}
	if err := d.Verify.Validate(); err != nil {
		return refused(err)
	}
	c, err := h.open()
	if err != nil {
		return refused(err)
	}
	if len(d.Module) > 0 {
		d.Digest = service.DigestOf(d.Module)
	}
	defer c.catalog.Hold(d.Digest)()
	if err := c.catalog.MayPut(d.Digest, int64(len(d.Module))); len(d.Module) > 0 && err != nil {
		return refused(err)
	}
	spec := service.Spec{
		Service: d.Service, Module: d.Digest,
		Limits: d.Limits.Over(h.opt.Limits), Settings: d.Settings.Over(h.opt.Settings),
	}
	if err := cmp.Or(spec.Validate(), h.opt.Budget.Fits(spec.Limits)); err != nil {
		return refused(err)
	}
	r := registry.Request{Spec: spec, Module: d.Module, DryRun: dry, Verify: d.Verify.Over(h.opt.Verify).WithDefaults()}
	if d.Progress != nil {
		r.Progress = func(stage registry.Stage, done, total int64) {
			d.Progress(service.Progress{Stage: string(stage), Done: done, Total: total})
		}
	}
	svc, shown, err := c.registry.Deploy(ctx, r)
	return c, svc, shown, err
}

// Delete stops a service. Commands that it has accepted may run for Options.DrainTime. Its log is kept and
// can be read, and a later deployment under the same name continues it. Until then the service is
// [service.StateStopped] and refuses commands and queries with [service.KindConflicting]. Deleting a stopped
// service changes nothing. A service without readable events, because it never had any or a retention has
// deleted them all, ceases to exist.
func (h *Host) Delete(ctx context.Context, name service.Name) error {
	c, err := h.open()
	if err != nil {
		return err
	}
	err = c.registry.Delete(ctx, name)
	if err == nil {
		h.opt.Logger.Info("a service was stopped; its log stays", "service", string(name))
	}
	return err
}

// Accepts describes the data that a service accepts in commands and queries.
func (h *Host) Accepts(name service.Name) (service.Accepts, error) {
	_, svc, err := h.readService(name)
	if err != nil {
		return service.Accepts{}, err
	}
	return svc.Accepts(), nil
}

// Status is the present status of a service.
func (h *Host) Status(name service.Name) (service.Status, error) {
	c, svc, err := h.readService(name)
	if err != nil {
		return service.Status{}, err
	}
	return h.status(c, svc), nil
}

func (h *Host) status(c *core, svc *registry.Service) service.Status {
	st := svc.Status()
	log := journal.LogName(st.Spec.Service)
	st.Cursor.Origin = c.journal.Origin(log)
	st.Cursor.Position, st.Cursor.Stamp = c.journal.Newest(log)
	st.Head = st.Cursor.Position
	dropped := h.logs.Dropped(string(st.Spec.Service))
	st.Counters.LogLinesDropped, st.Counters.LogBytesDropped = dropped.Lines, dropped.Bytes
	st.LogBytes, _ = c.journal.LogBytes(log)
	if damage := c.journal.Damage(log); damage != nil {
		st.State, st.Problem = service.StateFailed, "the service's log is damaged: "+journal.DetailOf(damage)
	}
	return st
}

// Services returns the status of all services, sorted by name.
func (h *Host) Services() []service.Status {
	c, err := h.reading()
	if err != nil {
		return nil
	}
	var all []service.Status
	for _, svc := range c.registry.All() {
		all = append(all, h.status(c, svc))
	}
	return all
}

// Logs lists the logs of the journal by name: one per service, and the host's own.
func (h *Host) Logs() []journal.LogInfo {
	c, err := h.open()
	if err != nil {
		return nil
	}
	return c.journal.Logs()
}

// EventTypes is the event catalogue of a service: the types of its readable events, by name. It includes
// every event whose command has been answered. A module can only be deployed if it knows all of them.
// EventTypes reads no events.
func (h *Host) EventTypes(ctx context.Context, name service.Name) ([]journal.EventType, error) {
	c, _, err := h.readService(name)
	if err != nil {
		return nil, err
	}
	types, err := c.journal.EventTypes(ctx, journal.LogName(name))
	return types, readError("event types", name, err)
}

// Measure counts the content of a log. This takes a while for a long log.
func (h *Host) Measure(ctx context.Context, log journal.LogName) (journal.LogSize, error) {
	c, err := h.open()
	if err != nil {
		return journal.LogSize{}, err
	}
	turn := h.readers.turn(ctx, "")
	if err := turn.Begin(ctx); err != nil {
		return journal.LogSize{}, turnError("", err)
	}
	defer turn.End()
	size, err := c.journal.Measure(ctx, log, func() error { return turnError("", turn.Begin(ctx)) })
	return size, keepError("measure", service.Name(log), err)
}

// Stats are the journal's counters since it was opened.
func (h *Host) Stats() journal.Stats {
	c, err := h.reading()
	if err != nil {
		return journal.Stats{}
	}
	return c.journal.Stats()
}

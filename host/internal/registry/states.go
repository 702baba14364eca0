package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

const (
	// pageStates and pageBytes bound how many snapshots are read at once.
	pageStates = 256
	pageBytes  = 4 << 20
)

// takesStates checks that a module can restore the entities that have lost events to a retention. Their first
// events are left only in a snapshot; without it they could not be hydrated. It compares the state schemas of
// all snapshots. Then a sandbox of the module, beside those that run, opens as many as there is time for.
//
// An entity that the running module cannot restore either is not a reason to refuse.
func (s *Registry) takesStates(ctx context.Context, next *build) error {
	c := &stateCheck{registry: s, next: next, takes: service.NewManifestIndex(&next.module.Manifest),
		schemas: map[uint32]bool{}}
	// First, so that a retention meanwhile is noticed when the old module is drained.
	next.facts.KeptFrom, next.retention = s.opt.Journal.First(c.log()), s.opt.Journal.Retentions(c.log())
	if svc, err := s.Get(next.spec.Service); err == nil {
		svc.mu.RLock()
		same := svc.manifest != nil && svc.spec.Module == next.spec.Module
		if svc.manifest != nil {
			c.old = service.NewManifestIndex(svc.manifest)
		}
		c.running = svc.running // its program stays during the deployment
		svc.mu.RUnlock()
		if same {
			return nil
		}
	}
	c.turn = next.program.HostTurn()
	defer c.turn.End()
	if err := c.each(ctx, c.compare); err != nil {
		return err
	}
	if c.refused == 0 && c.all > 0 {
		if err := c.open(ctx); err != nil {
			return err
		}
	}
	return c.verdict()
}

// stillTakesStates repeats takesStates if there was a retention since. Even one that has deleted no event
// from the log may have put a snapshot in the place of kept events.
func (s *Registry) stillTakesStates(ctx context.Context, next *build) error {
	if s.opt.Journal.Retentions(journal.LogName(next.spec.Service)) == next.retention {
		return nil
	}
	return s.takesStates(ctx, next)
}

// takesStatesStill is takesStates for a recorded module, unless its record says that it was checked against
// the present log.
func (s *Registry) takesStatesStill(ctx context.Context, next *build) error {
	if d, ok := s.opt.Catalog.Recorded(next.spec.Service); ok && d.Spec == next.spec {
		next.facts.KeptFrom = d.Facts.KeptFrom
		if s.opt.Journal.First(journal.LogName(next.spec.Service)) == next.facts.KeptFrom {
			return nil
		}
	}
	return s.takesStates(ctx, next)
}

// Module is the module that a service was deployed with, whether it runs or not, and its state schema.
func (s *Registry) Module(svc *Service) (module service.Digest, schema uint32) {
	if d, ok := s.opt.Catalog.Recorded(svc.Name()); ok {
		return d.Spec.Module, d.Facts.StateSchema
	}
	svc.mu.RLock()
	defer svc.mu.RUnlock()
	return svc.spec.Module, svc.known.StateSchema
}

// HoldModule keeps a service at its module until release is called. It waits while a deployment swaps it,
// until ctx ends. A retention needs it, as it relies on the snapshots of that module; later deployments are
// checked against what the retention has left. first is the position of the first event that it leaves.
// KindConflicting means that the service has another module.
func (s *Registry) HoldModule(
	ctx context.Context, svc *Service, module service.Digest, first journal.Position,
) (release func(), err error) {
	if gone := svc.swapping.LockWithin(ctx); gone != nil {
		return nil, &service.Error{Op: "retain", Service: svc.Name(), Kind: service.KindOf(gone), Err: gone,
			Message: "the caller gave up while a deployment of the service was under way; nothing was deleted"}
	}
	if now, _ := s.Module(svc); now != module {
		svc.swapping.Unlock()
		return nil, &service.Error{Op: "retain", Service: svc.Name(), Kind: service.KindConflicting,
			Message: "another module was deployed meanwhile, which needs snapshots of its own; nothing was deleted: " +
				"try again"}
	}
	before := s.opt.Journal.First(journal.LogName(svc.Name()))
	// First, so that a host that is killed after the cut starts the module again. One that is killed before it
	// checks the module once more, and loses nothing by that.
	s.noteRetention(ctx, svc.Name(), before, first)
	return func() {
		defer svc.swapping.Unlock()
		s.noteRetention(ctx, svc.Name(), first, s.opt.Journal.First(journal.LogName(svc.Name())))
	}, nil
}

// noteRetention records that the service's module was checked against the log from a position on, if it was
// checked against the log from another one. A forced retention was its operator's decision, and is no reason
// to refuse the next start.
func (s *Registry) noteRetention(ctx context.Context, name service.Name, before, first journal.Position) {
	d, ok := s.opt.Catalog.Recorded(name)
	if !ok || first == before || d.Facts.KeptFrom != before {
		return
	}
	d.Facts.KeptFrom = first
	if err := s.opt.Catalog.Started(context.WithoutCancel(ctx), d.Spec, d.Facts); err != nil {
		s.opt.Logger.Warn("could not record that the service's module fits what a retention has left; "+
			"it is checked again at the next start",
			"service", name, "error", err)
	}
}

// LogChanged tries a service that could not be started immediately again, as its log has changed.
func (s *Registry) LogChanged(svc *Service) { s.starter.hurry(svc) }

// stateCheck is one run of takesStates.
type stateCheck struct {
	registry *Registry
	next     *build
	turn     *fair.HostTurn
	takes    *service.ManifestIndex // of the new module
	old      *service.ManifestIndex // of the module that runs; nil if it is not known
	running  *build                 // nil if nothing runs, or it was drained

	schemas  map[uint32]bool // schemas of snapshots that the new module does not take
	all      int             // entities with a snapshot
	opened   int             // entities whose snapshot the new module opened
	readable int             // entities whose snapshot has a schema that it takes
	refused  int
	first    string // first entity that cannot be restored, and why
}

func (c *stateCheck) log() journal.LogName { return journal.LogName(c.next.spec.Service) }

// errPage ends a page of entities.
var errPage = errors.New("page")

// each calls look for all entities that have lost events and have a snapshot, in turns with others.
func (c *stateCheck) each(ctx context.Context, look func(context.Context, *journal.Trimmed) error) error {
	after := ""
	for {
		if err := c.turn.Begin(ctx); err != nil {
			return c.failed(err)
		}
		var page []journal.Trimmed
		bytes := 0
		err := c.registry.opt.Journal.AllTrimmed(ctx, c.log(), after, func(t journal.Trimmed) error {
			after = t.Key
			if t.Snapshot != nil && t.Kept != 1 { // all events are as good as a snapshot
				page = append(page, t)
				bytes += len(t.Snapshot.State)
			}
			if len(page) == pageStates || bytes >= pageBytes {
				return errPage
			}
			return nil
		})
		if err != nil && !errors.Is(err, errPage) {
			return c.failed(err)
		}
		for i := range page {
			if err := look(ctx, &page[i]); err != nil {
				return err
			}
		}
		if err == nil {
			return nil
		}
	}
}

// compare compares the schemas of an entity's snapshots.
func (c *stateCheck) compare(ctx context.Context, t *journal.Trimmed) error {
	c.all++
	if c.takes.Takes(t.Snapshot.Schema) {
		c.readable++
		return nil
	}
	latest, ok, err := c.registry.opt.Journal.Snapshot(ctx, c.log(), t.Key)
	switch {
	case err != nil && journal.KindOf(err) != journal.KindCorrupt:
		return c.failed(err)
	case err != nil || !ok:
		latest = *t.Snapshot
	}
	switch {
	case c.takes.Takes(latest.Schema):
		c.readable++
	case c.old != nil && !c.old.Takes(latest.Schema) && !c.old.Takes(t.Snapshot.Schema):
		// The running module cannot restore it either.
	default:
		c.schemas[latest.Schema] = true
		c.refuse(t, fmt.Sprintf("its snapshot is of state schema %d, and the module has %d", latest.Schema,
			c.next.module.Manifest.StateSchema))
	}
	return nil
}

func (c *stateCheck) refuse(t *journal.Trimmed, why string) {
	if c.refused++; c.refused == 1 {
		c.first = fmt.Sprintf("entity %q, whose events up to version %d are deleted: %s", t.Key, t.Gone(), why)
	}
}

// errTime ends the opening of snapshots.
var errTime = errors.New("no more time")

// open makes a sandbox of the new module open the snapshots, as many as there is time for.
func (c *stateCheck) open(ctx context.Context) error {
	c.turn.Rest() // the guest takes its own turns, the first one to initialise
	guest, err := c.next.program.Instantiate(ctx, sandbox.SlogLogger(c.registry.opt.Logger))
	if err != nil {
		return err
	}
	defer func() { _ = guest.Close(context.WithoutCancel(ctx)) }()
	within, cancel := context.WithTimeoutCause(ctx, c.registry.opt.OpenTime, errTime)
	defer cancel()
	err = c.each(within, func(ctx context.Context, t *journal.Trimmed) error { return c.openOne(ctx, guest, t) })
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(within), errTime) {
		return nil
	}
	return err
}

// openOne makes the guest open snapshots of an entity until it takes one.
func (c *stateCheck) openOne(ctx context.Context, guest *sandbox.Instance, t *journal.Trimmed) error {
	latest, ok, err := c.registry.opt.Journal.Snapshot(ctx, c.log(), t.Key)
	if err != nil && journal.KindOf(err) != journal.KindCorrupt {
		return c.failed(err)
	}
	candidates := []*journal.Snapshot{t.Snapshot}
	if err == nil && ok && latest.Version != t.Snapshot.Version {
		candidates = []*journal.Snapshot{&latest, t.Snapshot}
	}
	tried, why, err := c.take(ctx, guest, c.takes, t.Key, candidates)
	if err != nil || !tried { // otherwise the running module cannot restore it either
		return err
	}
	c.opened++
	if why == nil {
		return nil
	}
	lost, err := c.lostAlready(ctx, t.Key, candidates)
	if err == nil && !lost {
		c.refuse(t, "its snapshot is refused by the module: "+why.Error())
	}
	return err
}

// take makes a guest, whose module has this manifest, open snapshots of an entity until it takes one. why is
// nil if it did, and otherwise says why it took none. err is an error of the host.
func (c *stateCheck) take(
	ctx context.Context, guest *sandbox.Instance, of *service.ManifestIndex, key string,
	candidates []*journal.Snapshot,
) (tried bool, why, err error) {
	for _, x := range candidates {
		from, known := of.Snapshot(x)
		if !known {
			continue
		}
		c.turn.Rest() // the guest takes its own turns
		tried, why = true, guest.Hydrate(ctx, 0, service.Key(key), from,
			func(func(service.GuestEvent) error) error { return nil })
		if why == nil {
			break
		}
		if err := c.cured(ctx, guest, why); err != nil {
			return tried, why, err
		}
	}
	if guest.Worn() {
		err = guest.Reset(ctx)
	}
	return tried, why, err
}

// lostAlready reports whether the running module does not take the entity's snapshots either. It asks a new
// sandbox of that module, beside those that run.
func (c *stateCheck) lostAlready(ctx context.Context, key string, candidates []*journal.Snapshot) (bool, error) {
	if c.running == nil || c.old == nil {
		return false, nil
	}
	guest, err := c.running.program.Instantiate(ctx, sandbox.SlogLogger(c.registry.opt.Logger))
	if err != nil {
		return false, err
	}
	defer func() { _ = guest.Close(context.WithoutCancel(ctx)) }()
	_, why, err := c.take(ctx, guest, c.old, key, candidates)
	return why != nil, err
}

// cured makes the guest usable after it has not taken a snapshot. An error is one of the host.
func (c *stateCheck) cured(ctx context.Context, guest *sandbox.Instance, why error) error {
	if ctx.Err() != nil {
		return c.failed(ctx.Err())
	}
	switch service.KindOf(why) {
	case service.KindQuota, service.KindOverloaded, service.KindUnavailable, service.KindCanceled, service.KindInternal:
		return why
	}
	if !guest.Broken() {
		return nil
	}
	return guest.Reset(ctx)
}

// failed is the error of a check that could not be made.
func (c *stateCheck) failed(err error) error {
	from := service.FromJournal{Use: service.JournalRead, Op: c.next.op, Service: c.next.spec.Service,
		Otherwise: "the snapshots of entities whose events are deleted cannot be read at present; nothing has changed"}
	return from.Make(err)
}

// verdict is the error of a deployment that is refused, or nil.
func (c *stateCheck) verdict() error {
	switch {
	case c.refused == 0:
		return nil
	case c.old == nil && len(c.schemas) > 0 && (c.readable > 0 || len(c.schemas) > 1):
		// There are snapshots of several schemas, as only a forced retention leaves them. No module takes
		// them all, and one must run.
		c.registry.opt.Logger.Warn("some entities whose events are deleted cannot be restored by the module that "+
			"starts",
			"service", c.next.spec.Service, "entities", c.refused, "of", c.all, "first", c.first)
		return nil
	}
	return &service.Error{Op: c.next.op, Service: c.next.spec.Service, Kind: service.KindConflicting,
		Message: "the module does not take the snapshots of entities whose events are deleted, and could not bring " +
			"them back",
		Reasons: []string{c.first, fmt.Sprintf("%d of %d such entities; the schemas of all and the snapshots of %d "+
			"were looked at", c.refused, c.all, c.opened)}}
}

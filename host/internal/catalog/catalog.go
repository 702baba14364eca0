// Package catalog stores modules and deployments.
//
// A deployment is an event in the journal's own log [Log], with the service's name as key. So the
// journal alone says which module ran when, and what is deployed now is a fold over that log.
// Modules are files named by their digest, each written atomically.
package catalog

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Log is the host's own log. No service can have this name.
const Log journal.LogName = "_host"

// Types of the events in [Log]. They are part of the disk format.
const (
	eventDeployed = "service_deployed" // data: deployment
	eventDeleted  = "service_deleted"  // data: {}
)

// deployment is the data of an [eventDeployed]. It is part of the disk format.
type deployment struct {
	service.Spec
	Facts
	// Verification is what the verification of the module has shown; nil in records of a start.
	Verification *service.Verification `json:"verification,omitempty"`
}

// Facts are what the host learnt about a module when it deployed or started it. They are part of
// the disk format. Records of earlier versions have none of them, or only the tariff, or also
// `events`, the names of the module's event types, which is no longer read because the log has
// them.
type Facts struct {
	// Tariff is the version of the rules by which fuel is charged from here on. A program with
	// another tariff records the deployment again when it starts the service. Fuel of commands may
	// only be compared under the same tariff.
	Tariff int `json:"tariff,omitempty"`
	// Start is how long the first sandbox took to initialise and to describe itself; 0: unknown. It
	// decides which services start first.
	Start time.Duration `json:"start_ns,omitempty"`
	// Encoding is the encoding of the module's data, so that requests can be checked before the
	// module has started; empty: unknown.
	Encoding string `json:"encoding,omitempty"`
	// StateSchema is the module's state schema, which tells which snapshots the module accepts when
	// it does not run; 0: none, or unknown.
	StateSchema uint32 `json:"state_schema,omitempty"`
	// KeptFrom is the position of the first event of the service's log when the module was last
	// checked against what retentions have left of the log; 0: unknown.
	KeptFrom journal.Position `json:"kept_from,omitempty"`
	// ModuleVersion is the version that the module's author gave it; empty: none, or unknown.
	ModuleVersion string `json:"module_version,omitempty"`
}

// same reports whether two facts are equal, except for the start time, which always differs.
func (f Facts) same(other *Facts) bool {
	f.Start = other.Start
	return f == *other
}

// Deployment is what runs under a service's name, and what is known about its module.
type Deployment struct {
	Spec  service.Spec
	Facts Facts
}

// Journal is the part of the journal that a catalog uses; see [commitlog.Journal].
type Journal interface {
	Append(ctx context.Context, c *journal.Commit, done func(journal.Receipt, error)) error
	Read(ctx context.Context, log journal.LogName, after journal.Position, limit int,
		yield func(*journal.Event) error) error
	Load(ctx context.Context, log journal.LogName, key string, after journal.Version,
		yield func(*journal.Event) error) (journal.Version, error)
}

// Catalog is an open catalog. It is safe for concurrent use.
type Catalog struct {
	*Modules
	journal Journal

	mu       sync.Mutex // guards all below; held while a deployment is journaled
	deployed map[service.Name]Deployment
	stopped  map[service.Name]Deployment       // the last deployment of each stopped service
	earlier  map[service.Name][]service.Digest // the last modules before the deployed one, the newest first
	versions map[service.Name]journal.Version  // of the entity in the log
}

// Open reads the deployments from the journal. An error of kind KindInternal means that the host's
// log has an event that this program cannot read.
func Open(ctx context.Context, m *Modules, j Journal) (*Catalog, error) {
	c := &Catalog{Modules: m, journal: j, deployed: map[service.Name]Deployment{},
		stopped: map[service.Name]Deployment{},
		earlier: map[service.Name][]service.Digest{}, versions: map[service.Name]journal.Version{}}
	err := j.Read(ctx, Log, 0, 0, func(e *journal.Event) error {
		name := service.Name(e.Key)
		c.versions[name] = e.Version
		switch e.Type {
		case eventDeployed:
			var d deployment
			if err := json.Unmarshal(e.Data, &d); err != nil {
				return service.Errorf(service.KindInternal, "the deployment of %s at position %d cannot be read: %w",
					name, e.Position, err)
			}
			if _, err := service.ParseName(e.Key); err != nil || d.Service != name {
				return service.Errorf(service.KindInternal, "the deployment at position %d is of service %q, and "+
					"recorded for %q", e.Position, d.Service, e.Key)
			}
			c.noteDeployed(Deployment{d.Spec, d.Facts}) // its limits are validated at start
		case eventDeleted:
			c.noteDeleted(name)
		default:
			return service.Errorf(service.KindInternal, "the host's log has an event of type %q, which a newer "+
				"version wrote", e.Type)
		}
		return nil
	})
	return c, err
}

// Deployments returns what is deployed, sorted by name.
func (c *Catalog) Deployments() []Deployment { return c.list(c.deployed) }

// Stopped returns the last deployments of services that were stopped and not deployed again, sorted
// by name. Their modules may have been removed.
func (c *Catalog) Stopped() []Deployment { return c.list(c.stopped) }

// Recorded returns the last deployment of a service, whether it runs or is stopped. ok is false if
// there is none.
func (c *Catalog) Recorded(name service.Name) (d Deployment, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d, ok = c.deployed[name]; !ok {
		d, ok = c.stopped[name]
	}
	return d, ok
}

func (c *Catalog) list(of map[service.Name]Deployment) (all []Deployment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(of)) {
		all = append(all, of[name])
	}
	return all
}

// Specs returns the specs of what is deployed, sorted by name.
func (c *Catalog) Specs() []service.Spec {
	var all []service.Spec
	for _, d := range c.Deployments() {
		all = append(all, d.Spec)
	}
	return all
}

// Deploy records that a service shall run according to spec, what is known about its module, and what its
// verification has shown.
// When it returns nil, the deployment is on disk. After an error of kind KindUnknown it may be.
func (c *Catalog) Deploy(ctx context.Context, spec service.Spec, known Facts, shown *service.Verification) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deploy(ctx, spec, known, shown)
}

// Started records what is known about the module of a deployed service after its start. It does
// nothing if only the start time differs from what is recorded, or if the deployment has been
// replaced meanwhile. Errors are those of Deploy.
func (c *Catalog) Started(ctx context.Context, spec service.Spec, known Facts) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, ok := c.deployed[spec.Service]
	if !ok || old.Spec != spec || old.Facts.same(&known) {
		return nil
	}
	return c.deploy(ctx, spec, known, nil)
}

// deploy records a deployment. The caller holds mu.
func (c *Catalog) deploy(ctx context.Context, spec service.Spec, known Facts, shown *service.Verification) error {
	data, err := json.Marshal(deployment{spec, known, shown.Brief()})
	if err != nil {
		return service.Errorf(service.KindInternal, "encode deployment: %w", err)
	}
	if err := c.record(ctx, spec.Service, "deploy", eventDeployed, data); err != nil {
		return err
	}
	c.released(c.noteDeployed(Deployment{spec, known}))
	return nil
}

// noteDeployed applies a deployment to the maps. It returns the modules that the service referred
// to before and may refer to no longer. The caller holds mu, or is Open.
func (c *Catalog) noteDeployed(d Deployment) (before []service.Digest) {
	name := d.Spec.Service
	if old, ok := c.deployed[name]; ok && old.Spec.Module != d.Spec.Module {
		// A module that returns leaves its earlier place.
		all := slices.DeleteFunc(c.earlier[name], func(e service.Digest) bool {
			return e == old.Spec.Module || e == d.Spec.Module
		})
		all = slices.Insert(all, 0, old.Spec.Module)
		if most := max(c.opt.Earlier, 1); len(all) > most {
			before = slices.Clone(all[most:])
			all = slices.Clip(all[:most])
		}
		c.earlier[name] = all
	}
	c.deployed[name] = d
	delete(c.stopped, name)
	return before
}

// noteDeleted applies a deletion to the maps: a running service becomes stopped, a stopped one is
// removed. Otherwise it is like noteDeployed.
func (c *Catalog) noteDeleted(name service.Name) (before []service.Digest) {
	before = append(slices.Clone(c.earlier[name]), c.deployed[name].Spec.Module)
	if d, ok := c.deployed[name]; ok {
		c.stopped[name] = d
	} else {
		delete(c.stopped, name)
	}
	delete(c.deployed, name)
	delete(c.earlier, name)
	return before
}

// Delete records that a service shall no longer run or, if it is stopped already, that it is
// removed. Errors are those of Deploy.
func (c *Catalog) Delete(ctx context.Context, name service.Name) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.record(ctx, name, "delete", eventDeleted, []byte("{}")); err != nil {
		return err
	}
	c.released(c.noteDeleted(name))
	return nil
}

// record appends one event and waits until it is on disk. The caller holds mu.
func (c *Catalog) record(ctx context.Context, name service.Name, command, event string, data []byte) error {
	done := make(chan error, 1)
	err := c.journal.Append(ctx, &journal.Commit{
		Log:      Log,
		Expected: c.versions[name],
		Command: journal.Command{
			ID: journal.CommandID(rand.Text()), Type: command, Key: string(name), Data: data,
			Time: journal.UnixNano(time.Now().UnixNano()),
		},
		Events:      []journal.NewEvent{{Type: event, Data: data}},
		GeneratedID: true,
	}, func(_ journal.Receipt, err error) { done <- err })
	if err != nil {
		return service.FromJournal{Use: service.JournalWrite, Op: command, Service: name,
			Otherwise: "the deployment could not be recorded; nothing has changed"}.Of(err)
	}
	if err := <-done; err != nil {
		return &service.Error{Op: command, Service: name, Kind: service.KindUnknown,
			Message: "nobody knows whether the deployment was recorded; look at the service and deploy again", Err: err}
	}
	c.versions[name]++
	return nil
}

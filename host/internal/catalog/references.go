package catalog

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A service refers to the module that it runs, and to some that it ran before, so that a rollback
// needs no upload; see [ModuleOptions]. All other modules may be deleted or collected. The log keeps
// the events of a deleted module; only re-executing its commands needs the module itself.

// ModuleUse returns the stored modules with the services that refer to them, sorted by digest.
func (c *Catalog) ModuleUse() ([]service.StoredModule, error) {
	all, err := c.Stored()
	if err != nil {
		return nil, err
	}
	refer := c.referring()
	for i := range all {
		if r := refer[all[i].Digest]; r != nil {
			all[i].Services, all[i].Earlier = r.run, r.earlier
		}
	}
	return all, nil
}

// referrers are the services that run a module, and those that ran it before; sorted by name.
type referrers struct{ run, earlier []service.Name }

// referring returns the referrers of each module that has any.
func (c *Catalog) referring() map[service.Digest]*referrers {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[service.Digest]*referrers{}
	of := func(d service.Digest) *referrers {
		if all[d] == nil {
			all[d] = new(referrers)
		}
		return all[d]
	}
	for _, name := range slices.Sorted(maps.Keys(c.deployed)) {
		d := c.deployed[name].Spec.Module
		r := of(d)
		r.run = append(r.run, name)
		for _, before := range c.earlier[name] {
			r := of(before)
			r.earlier = append(r.earlier, name)
		}
	}
	return all
}

// references returns the referrers of one module. The caller holds mu.
func (c *Catalog) references(d service.Digest) (run, earlier []service.Name) {
	for name := range c.deployed {
		if c.deployed[name].Spec.Module == d {
			run = append(run, name)
		} else if slices.Contains(c.earlier[name], d) {
			earlier = append(earlier, name)
		}
	}
	slices.Sort(run)
	slices.Sort(earlier)
	return run, earlier
}

// released touches those modules that have lost their last reference, so that they are kept for a
// while. The caller holds mu.
func (c *Catalog) released(modules []service.Digest) {
	for _, d := range modules {
		if run, earlier := c.references(d); len(run)+len(earlier) == 0 {
			c.touch(d) // a missing module is ignored
		}
	}
}

// DeleteModule removes a module without references, whatever its age, and calls also (may be nil)
// to remove what belongs to it. No deployment of it can begin meanwhile. The error has
// KindConflicting if services refer to the module, and names them.
func (c *Catalog) DeleteModule(d service.Digest, also func(service.Digest) error) error {
	_, err := c.removeUnreferenced(d, time.Now().Add(time.Hour), also)
	return err
}

// Collect removes the modules without references since before the given time, and returns them.
func (c *Catalog) Collect(before time.Time) (gone []service.Digest, err error) {
	all, err := c.Stored()
	if err != nil {
		return nil, err
	}
	refer := c.referring()
	var errs []error
	for _, m := range all {
		if !m.Since.Before(before) || refer[m.Digest] != nil {
			continue
		}
		removed, err := c.removeUnreferenced(m.Digest, before, nil)
		switch kind := service.KindOf(err); {
		case removed:
			gone = append(gone, m.Digest)
		case err != nil && kind != service.KindConflicting && kind != service.KindNotFound:
			errs = append(errs, err)
		}
	}
	return gone, errors.Join(errs...)
}

// removeUnreferenced removes a module unless something refers to it. A deployment holds its module
// from before it checks for the file until it is recorded, so it cannot miss the removal.
func (c *Catalog) removeUnreferenced(d service.Digest, before time.Time,
	also func(service.Digest) error) (removed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	run, earlier := c.references(d)
	if len(run)+len(earlier) == 0 {
		return c.remove(d, before, also)
	}
	reasons := make([]string, 0, len(run)+len(earlier))
	for _, name := range run {
		reasons = append(reasons, "service "+string(name)+" runs it")
	}
	for _, name := range earlier {
		reasons = append(reasons, "service "+string(name)+" ran it before its present module")
	}
	return false, &service.Error{Op: "delete module", Kind: service.KindConflicting, Reasons: reasons,
		Message: "module " + d.String() + " is referred to: " + strings.Join(reasons, ", ")}
}

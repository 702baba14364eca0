package catalog

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A module is referred to by every service that it is deployed as, and by those that ran
// it before the module that they run now, so that going back to it needs no upload.
// Everything else is what a deletion or a collection may remove. What runs under a
// digest that is gone stays in the log all the same; only executing its commands again
// needs the module.

// ModuleUse lists the stored modules with what refers to them, in order of their digests.
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

// referrers are the services that run a module, and those that ran it before; by name.
type referrers struct{ run, earlier []service.Name }

// referring are the referrers of each module that has any. It looks at each service once.
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
		if before, ok := c.earlier[name]; ok && before != d {
			r := of(before)
			r.earlier = append(r.earlier, name)
		}
	}
	return all
}

// references are the referrers of one module. The caller holds mu.
func (c *Catalog) references(d service.Digest) (run, earlier []service.Name) {
	for name := range c.deployed {
		if c.deployed[name].Spec.Module == d {
			run = append(run, name)
		} else if before, ok := c.earlier[name]; ok && before == d {
			earlier = append(earlier, name)
		}
	}
	slices.Sort(run)
	slices.Sort(earlier)
	return run, earlier
}

// released makes modules young that have lost their last reference. The caller holds mu.
func (c *Catalog) released(modules []service.Digest) {
	for _, d := range modules {
		if run, earlier := c.references(d); len(run)+len(earlier) == 0 {
			c.touch(d) // if it is there
		}
	}
}

// DeleteModule removes a module that nothing refers to, however young it is, and what also
// removes of it, which may be nil; no deployment of it begins in between. KindConflicting
// names the services that refer to it.
func (c *Catalog) DeleteModule(d service.Digest, also func(service.Digest) error) error {
	_, err := c.removeUnreferenced(d, time.Now().Add(time.Hour), also)
	return err
}

// Collect removes the modules that nothing has referred to since a time, and returns them.
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

// removeUnreferenced removes a module unless something refers to it. Whoever is about
// to refer to it holds it, from before it looks whether it is there until the deployment
// is noted, so nothing can come between.
func (c *Catalog) removeUnreferenced(d service.Digest, before time.Time, also func(service.Digest) error) (removed bool, err error) {
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

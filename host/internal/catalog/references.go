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
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range all {
		all[i].Services, all[i].Earlier = c.references(all[i].Digest)
	}
	return all, nil
}

// references are the services that run a module, and those that ran it before. The
// caller holds mu.
func (c *Catalog) references(d service.Digest) (run, earlier []service.Name) {
	for _, name := range slices.Sorted(maps.Keys(c.deployed)) {
		if c.deployed[name].Spec.Module == d {
			run = append(run, name)
		} else if before, ok := c.earlier[name]; ok && before == d {
			earlier = append(earlier, name)
		}
	}
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

// DeleteModule removes a module that nothing refers to, however young it is.
// KindConflicting names the services that refer to it.
func (c *Catalog) DeleteModule(d service.Digest) error {
	_, err := c.removeUnreferenced(d, time.Now().Add(time.Hour))
	return err
}

// Collect removes the modules that nothing has referred to since a time, and returns them.
func (c *Catalog) Collect(before time.Time) (gone []service.Digest, err error) {
	all, err := c.Stored()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, m := range all {
		if !m.Since.Before(before) {
			continue
		}
		removed, err := c.removeUnreferenced(m.Digest, before)
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
func (c *Catalog) removeUnreferenced(d service.Digest, before time.Time) (removed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	run, earlier := c.references(d)
	if len(run)+len(earlier) == 0 {
		return c.remove(d, before)
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

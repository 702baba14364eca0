package host

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Quarantine reads a page of the entities of a service that its module cannot hydrate, by key: at most limit of those
// after a key (empty: all). A limit of 0 or above 1000 means 1000. The errors are those of Status.
func (h *Host) Quarantine(name service.Name, after service.Key, limit int) (service.QuarantinePage, error) {
	_, svc, err := h.readService(name)
	if err != nil {
		return service.QuarantinePage{}, err
	}
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	return svc.Quarantine(after, limit), nil
}

// Quarantined is the number of quarantined entities of each service that has any.
func (h *Host) Quarantined() map[service.Name]int {
	c, err := h.reading()
	if err != nil {
		return nil
	}
	all := map[service.Name]int{}
	for _, svc := range c.registry.All() {
		if n := svc.Quarantined(); n > 0 {
			all[svc.Name()] = n
		}
	}
	return all
}

// Release tries at once to hydrate an entity, whether it is quarantined or not. If that fails, the error is that of a
// command, and the wait until the next attempt grows. If ctx ends, Release returns its cause, and the attempt goes on.
func (h *Host) Release(ctx context.Context, name service.Name, key service.Key) (service.Released, error) {
	if _, err := service.ParseKey(string(key)); err != nil {
		return service.Released{}, err
	}
	svc, err := h.service(name)
	if err != nil {
		return service.Released{}, err
	}
	type outcome struct {
		r   service.Released
		err error
	}
	done := make(chan outcome, 1)
	if err := svc.Release(key, func(r service.Released, err error) { done <- outcome{r, err} }); err != nil {
		return service.Released{}, err
	}
	select {
	case o := <-done:
		if o.err == nil && o.r.Quarantined {
			h.opt.Logger.Info("a quarantined entity was released", "service", string(name), "entity", string(key))
		}
		return o.r, o.err
	case <-ctx.Done():
		return service.Released{}, &service.Error{Op: "release", Service: name, Kind: service.KindOf(ctx.Err()),
			Message: "the caller gave up; the attempt goes on", Err: context.Cause(ctx)}
	}
}

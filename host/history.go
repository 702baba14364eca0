package host

import (
	"context"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// maxPage bounds the entries of a page.
const maxPage = 1000

// Deployments reads a page of a service's history, the newest deployment first: at most limit of those with a number
// below before. A before of 0 means the end of the history, and a limit of 0 or above 1000 means 1000. A service that
// is stopped has its history. The errors are those of Status.
func (h *Host) Deployments(
	ctx context.Context, name service.Name, before service.Version, limit int,
) (service.DeploymentPage, error) {
	c, _, err := h.readService(name)
	if err != nil {
		return service.DeploymentPage{}, err
	}
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	found, more, err := c.catalog.History(ctx, name, before, limit)
	if err != nil {
		return service.DeploymentPage{}, err
	}
	for i := range found {
		found[i].Stored = c.catalog.Has(found[i].Module)
	}
	p := service.DeploymentPage{Deployments: found}
	if more {
		p.Before = found[len(found)-1].Number
	}
	return p, nil
}

// Rollback deploys an earlier deployment of a service again, with its module, limits and settings. It is a deployment
// like any other: with the same checks, the same errors, and a new entry in the history. KindNotFound means that there
// is no such deployment, or that its module is no longer stored; the module has to be uploaded again then.
func (h *Host) Rollback(ctx context.Context, r service.Rollback) (service.Status, error) {
	c, _, err := h.readService(r.Service)
	if err != nil {
		return service.Status{}, err
	}
	to, err := c.catalog.Entry(ctx, r.Service, r.To)
	if err != nil {
		return service.Status{}, err
	}
	defer c.catalog.Hold(to.Module)()
	if !c.catalog.Has(to.Module) {
		return service.Status{}, &service.Error{Op: "rollback", Service: r.Service, Kind: service.KindNotFound,
			Message: "the module of that deployment, " + to.Module.String() + ", is no longer stored; upload it " +
				"again, and then roll back"}
	}
	return h.Deploy(ctx, service.Deployment{Service: r.Service, Digest: to.Module, Limits: to.Limits,
		Settings: to.Settings, Verify: r.Verify, Progress: r.Progress})
}

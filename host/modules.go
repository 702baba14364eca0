package host

import (
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Modules lists the stored modules, and the services that refer to them.
func (h *Host) Modules() (service.Modules, error) {
	c, err := h.open()
	if err != nil {
		return service.Modules{}, err
	}
	all, err := c.catalog.ModuleUse()
	if err != nil {
		return service.Modules{}, err
	}
	code, err := h.runtime.Compiler().CodeBytes()
	if err != nil {
		return service.Modules{}, err
	}
	m := service.Modules{Modules: all, Limit: h.opt.Budget.ModuleBytes, Keep: h.opt.ModuleKeep}
	for i := range all {
		all[i].CodeBytes = code[all[i].Digest]
		delete(code, all[i].Digest)
		m.Bytes += all[i].Size
	}
	for _, bytes := range code {
		m.OtherCodeBytes += bytes
	}
	return m, nil
}

// DeleteModule removes a stored module and its machine code. The error is KindConflicting if services run the
// module, or ran it just before their present module; it names them. KindNotFound if it is not stored.
func (h *Host) DeleteModule(d service.Digest) error {
	c, err := h.open()
	if err != nil {
		return err
	}
	err = c.catalog.DeleteModule(d, h.runtime.Compiler().RemoveCode)
	if err == nil {
		h.opt.Logger.Info("a module was deleted", "module", d)
	}
	return err
}

// Collected is what a collection of modules has removed.
type Collected struct {
	Modules   []service.Digest
	CodeBytes int64 // of machine code
}

// CollectModules removes modules to which no service has referred since before, and machine code that is as
// old and whose module is not stored. The host also does this on its own, see Options.ModuleKeep.
func (h *Host) CollectModules(before time.Time) (Collected, error) {
	c, err := h.open()
	if err != nil {
		return Collected{}, err
	}
	var done Collected
	if done.Modules, err = c.catalog.Collect(before); err != nil {
		return done, err
	}
	done.CodeBytes, err = h.runtime.Compiler().CollectCode(before, c.catalog.Keeps)
	return done, err
}

// The host looks for modules to remove after a twenty-fourth of the time that they are kept, but within these
// bounds.
const minCollectWait, maxCollectWait = time.Minute, time.Hour

// collectLoop removes modules that have had no reference for too long. Close waits for it.
func (h *Host) collectLoop() {
	keep := h.opt.ModuleKeep
	if keep < 0 {
		return
	}
	for lifecycle.Sleep(h.life, min(max(keep/24, minCollectWait), maxCollectWait)) {
		done, err := h.CollectModules(time.Now().Add(-keep))
		switch {
		case err != nil && service.KindOf(err) != service.KindUnavailable:
			h.opt.Logger.Warn("modules without a reference cannot be removed", "error", err)
		case len(done.Modules) > 0 || done.CodeBytes > 0:
			h.opt.Logger.Info("modules without a reference were removed", "modules", done.Modules,
				"machine_code_bytes", done.CodeBytes, "after", keep)
		}
	}
}

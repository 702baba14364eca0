package host

import (
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// budgetOf fills in b's defaults for a machine with so much memory and so many mappings; 0 means unknown.
func budgetOf(b service.Budget, memory, mappings int64) service.Budget {
	b = b.WithDefaults()
	if b.Sandboxes == 0 {
		b.Sandboxes = maxSandboxes
		if mappings > 0 {
			b.Sandboxes = max(1, min(b.Sandboxes, mappings/mappingsPerSandbox))
		}
	}
	if b.SandboxBytes == 0 {
		b.SandboxBytes = sandboxMemory
		if memory > 0 {
			b.SandboxBytes = memory / 2
		}
	}
	if b.JournalMemoryBytes == 0 {
		b.JournalMemoryBytes = max(minJournalMemory, memory/4)
	}
	return b
}

const (
	// mappingsPerSandbox counts up to three mappings for the memory of a sandbox, up to two for its module's
	// code, and the rest for what Go and the journal need for both.
	mappingsPerSandbox = 8
	maxSandboxes       = 4096
	sandboxMemory      = 1 << 30 // if the memory of the machine is unknown
	// minJournalMemory is enough for a journal with the default cache, also after a crash, and for one more index, in
	// the place of one that could not be closed.
	minJournalMemory = 512 << 20
)

// newBudget opens the account from which everything in a host draws.
func newBudget(b service.Budget) *budget.Account {
	return budget.New(budget.Limits{
		budget.FlightBytes:        b.FlightBytes,
		budget.Sandboxes:          b.Sandboxes,
		budget.SandboxBytes:       b.SandboxBytes,
		budget.JournalMemoryBytes: b.JournalMemoryBytes,
		budget.Descriptors:        b.Descriptors,
		budget.DiskBytes:          b.DiskBytes,
	})
}

// Budget returns the host's bounds, with defaults filled in.
func (h *Host) Budget() service.Budget { return h.opt.Budget }

// Account is the host's account in the budget. The gateway, and programs that embed a host, open accounts below it
// for what they hold for their clients.
func (h *Host) Account() *budget.Account { return h.budget }

// Resources reports how much of each of the host's resources is in use, and which services and clients use
// most of it; that is for operators only. Resources outside the budget, with bounds of their own, add their
// lines here.
func (h *Host) Resources() []service.ResourceUsage {
	h.measureDisk()
	all := h.budget.Usage()
	for i := range all {
		if all[i].Resource == budget.Readers.String() { // readers that find no place wait, and take nothing
			s := h.readers.turns.Stats()
			all[i].Used, all[i].Limit, all[i].Refused = int64(s.Working), int64(s.Slots), s.Refused
		}
	}
	return append(all, h.readers.rings.Usage(), h.logUsage(), h.modules.Usage())
}

// logUsage is how much of the log's rate is in use. Refused bytes are those of dropped lines.
func (h *Host) logUsage() service.ResourceUsage {
	l := h.logs.Usage()
	u := service.ResourceUsage{Resource: "log_bytes", Used: l.Used, Limit: l.Limit, Refused: l.Dropped.Lines}
	for _, holder := range l.Holders {
		u.Holders = append(u.Holders, service.ResourceHolder(holder))
	}
	return u
}

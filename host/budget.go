package host

import (
	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// budgetOf is b with defaults for a machine with so much memory and so many mappings; 0
// is unknown.
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
	// mappingsPerSandbox is for the memory of a sandbox, which is up to three mappings,
	// its module's code, which is up to two, and what Go and the journal need for both.
	mappingsPerSandbox = 8
	maxSandboxes       = 4096
	sandboxMemory      = 1 << 30 // where nobody can tell how much memory there is
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

// Budget is what bounds the host, with its defaults.
func (h *Host) Budget() service.Budget { return h.opt.Budget }

// Account is the host's account in the budget. Gateways open accounts below it for
// their connections.
func (h *Host) Account() *budget.Account { return h.budget }

// Resources tells how much of each of the host's resources is in use, and by whom most
// of it, which is for operators only. What is no account of the budget but has a bound
// of its own adds its line here.
func (h *Host) Resources() []service.ResourceUsage {
	h.measureDisk()
	all := h.budget.Usage()
	for i := range all {
		if all[i].Resource == budget.Readers.String() { // who wants to read waits, and takes nothing
			s := h.readers.turns.Stats()
			all[i].Used, all[i].Limit, all[i].Refused = int64(s.Working), int64(s.Slots), s.Refused
		}
	}
	return append(all, h.readers.rings.Usage(), h.logUsage(), h.modules.Usage())
}

// logUsage is what of the log's rate is in use. What was refused are lines that were dropped.
func (h *Host) logUsage() service.ResourceUsage {
	l := h.logs.Usage()
	u := service.ResourceUsage{Resource: "log_bytes", Used: l.Used, Limit: l.Limit, Refused: l.Dropped.Lines}
	for _, holder := range l.Holders {
		u.Holders = append(u.Holders, service.ResourceHolder(holder))
	}
	return u
}

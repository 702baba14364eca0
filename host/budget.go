package host

import (
	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// newBudget opens the account from which everything in a host draws.
func newBudget(b service.Budget) *budget.Account {
	return budget.New(budget.Limits{
		budget.FlightBytes:  b.FlightBytes,
		budget.Sandboxes:    b.Sandboxes,
		budget.SandboxBytes: b.SandboxBytes,
		budget.Descriptors:  b.Descriptors,
		budget.DiskBytes:    b.DiskBytes,
	})
}

// Account is the host's account in the budget. Gateways open accounts below it for
// their connections.
func (h *Host) Account() *budget.Account { return h.budget }

// Resources tells how much of each of the host's resources is in use.
func (h *Host) Resources() []service.ResourceUsage {
	h.measureDisk()
	all := h.budget.Usage()
	for i := range all {
		if all[i].Resource == budget.Readers.String() { // who wants to read waits, and takes nothing
			s := h.readers.turns.Stats()
			all[i].Used, all[i].Limit, all[i].Refused = int64(s.Working), int64(s.Slots), s.Refused
		}
	}
	return all
}

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
		budget.Readers:      b.Readers,
	})
}

// Account is the host's account in the budget. Gateways open accounts below it for
// their connections.
func (h *Host) Account() *budget.Account { return h.budget }

// Resources tells how much of each of the host's resources is in use.
func (h *Host) Resources() []service.ResourceUsage {
	h.measureDisk()
	return h.budget.Usage()
}

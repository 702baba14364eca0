package host

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// What an operator does not say comes from the machine, and has bounds.
func TestTheBudgetComesFromTheMachine(t *testing.T) {
	for _, c := range []struct {
		memory, mappings    int64
		sandboxes, memories int64
	}{
		{24 << 30, 65530, 4096, 12 << 30},
		{24 << 30, 1 << 20, 4096, 12 << 30},
		{1 << 30, 5000, 625, 512 << 20},
		{1 << 30, 3, 1, 512 << 20},
		{0, 0, 4096, 1 << 30},
	} {
		if b := budgetOf(service.Budget{}, c.memory, c.mappings); b.Sandboxes != c.sandboxes || b.SandboxBytes != c.memories {
			t.Errorf("%d bytes and %d mappings give %+v", c.memory, c.mappings, b)
		}
	}
	if b := budgetOf(service.Budget{Sandboxes: 7, SandboxBytes: 8}, 24<<30, 65530); b.Sandboxes != 7 || b.SandboxBytes != 8 {
		t.Errorf("what was said became %+v", b)
	}
}

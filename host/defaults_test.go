package host

import (
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Budgets that are not set come from the machine, and have bounds.
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
		if b := budgetOf(service.Budget{}, c.memory, c.mappings); b.Sandboxes != c.sandboxes ||
			b.SandboxBytes != c.memories {
			t.Errorf("%d bytes and %d mappings give %+v", c.memory, c.mappings, b)
		}
	}
	if b := budgetOf(service.Budget{Sandboxes: 7, SandboxBytes: 8}, 24<<30, 65530); b.Sandboxes != 7 ||
		b.SandboxBytes != 8 {
		t.Errorf("what was said became %+v", b)
	}
}

// However many files the journal has, some descriptors are left for connections, and a host whose journal has
// used all its files can be opened again.
func TestWhatIsLeftOfTheDescriptors(t *testing.T) {
	const limit, process = 128, 40
	d := &descriptors{limit: limit, process: process}
	for journal, want := range map[int64]int64{32: 72, 80: 120, 1000: limit - minConnections} {
		if got := d.claim(journal); got != want {
			t.Errorf("a journal that needs %d and the process have %d, not %d", journal, got, want)
		}
	}
	const late = 16 // the journal may need so many more when it reports that it is full
	if files := d.forJournal(); files <= 0 || process+files+late+minConnections >= limit {
		t.Errorf("of %d descriptors the journal may have %d", limit, files)
	}
	unknown := &descriptors{process: process}
	if unknown.forJournal() != 0 || unknown.claim(1000) != 1040 {
		t.Error("a limit that is not known bounds something")
	}
}

// The memory of the journal is a part of the machine's, and enough for a journal with the default cache. If stores were
// lost, the error says so.
func TestTheMemoryForTheJournal(t *testing.T) {
	for memory, want := range map[int64]int64{0: 512 << 20, 1 << 30: 512 << 20, 24 << 30: 6 << 30} {
		if b := budgetOf(service.Budget{}, memory, 0); b.JournalMemoryBytes != want {
			t.Errorf("with %d bytes of memory the journal may have %d", memory, b.JournalMemoryBytes)
		}
	}
	if b := budgetOf(service.Budget{JournalMemoryBytes: 7}, 24<<30, 0); b.JournalMemoryBytes != 7 {
		t.Errorf("what was said became %d", b.JournalMemoryBytes)
	}
	all := newBudget(service.Budget{JournalMemoryBytes: 100 << 20})
	m := newJournalMemory(all)
	if err := m.Take(30<<20, 40<<20); err != nil {
		t.Fatal(err)
	}
	m.Give(30 << 20) // the index could not be closed
	err := m.Take(30<<20, 40<<20)
	const want = "the journal may have 100MiB of memory and needs 110MiB: raise Budget.JournalMemoryBytes " +
		"(--max-journal-memory) by 10MiB, or lower IndexCacheBytes (--journal-cache) to 30MiB; 40MiB of it are lost " +
		"until the process ends, as stores could not be closed"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, not %s", err, want)
	}
	if used := all.Used(budget.JournalMemoryBytes); used != 40<<20 {
		t.Errorf("%d bytes are taken", used)
	}
}

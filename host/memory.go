package host

import (
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// journalMemory is the account of the memory that the stores of the journal may take. They take it before they are
// opened, at each opening, and give it back when they are closed. What could not be closed stays on the account, also
// when the journal is opened again.
type journalMemory struct{ account *budget.Account }

var _ storage.Memory = journalMemory{}

func newJournalMemory(all *budget.Account) journalMemory {
	return journalMemory{all.Child("journal", nil)}
}

// Take implements [storage.Memory].
func (m journalMemory) Take(log, index int64) error {
	held, limit := m.account.Used(budget.JournalMemoryBytes), m.account.Room(budget.JournalMemoryBytes)
	limit += held // nobody else takes of it
	if err := m.account.Take(budget.JournalMemoryBytes, log+index); err != nil {
		return memoryError(log, index, held, limit)
	}
	return nil
}

// Give implements [storage.Memory].
func (m journalMemory) Give(bytes int64) { m.account.Give(budget.JournalMemoryBytes, bytes) }

// memoryError is for stores that need more memory than is left of the limit. It says which options to change, as a
// program and as `bulkhead serve` know them.
func memoryError(log, index, held, limit int64) error {
	need := held + log + index
	missing := need - limit
	e := &service.Error{Op: "open", Kind: service.KindInvalid, Resource: budget.JournalMemoryBytes.String(), Used: need,
		Limit: limit,
		Message: fmt.Sprintf("the journal may have %dMiB of memory and needs %dMiB: raise Budget.JournalMemoryBytes "+
			"(--max-journal-memory) by %dMiB", limit>>20, mebibytes(need), mebibytes(missing))}
	if less := index - missing; less >= storage.MinIndexCacheBytes {
		e.Message += fmt.Sprintf(", or lower IndexCacheBytes (--journal-cache) to %dMiB", less>>20)
	}
	if held > 0 {
		e.Message += fmt.Sprintf("; %dMiB of it are lost until the process ends, as stores could not be closed",
			mebibytes(held))
	}
	return e
}

// mebibytes is a number of bytes in MiB, rounded up.
func mebibytes(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }

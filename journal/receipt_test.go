package journal_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Code elsewhere can have a zero value of the key's type, which it cannot name.
func TestOnlyTheJournalMakesReceipts(t *testing.T) {
	if r := forgeReceipt(journal.NewReceipt); r.Valid() || r != (journal.Receipt{}) {
		t.Errorf("a receipt was forged: %+v", r)
	}
}

func forgeReceipt[K any](newReceipt func(K, journal.Proven) journal.Receipt) journal.Receipt {
	var key K
	return newReceipt(key, journal.Proven{Log: "bank", Key: "alice", First: 1, Events: 1, Version: 1})
}

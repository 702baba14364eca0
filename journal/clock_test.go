package journal_test

import (
	"sync/atomic"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// clockAt is a clock that shows what is in at. Goroutines of the journal read it, so a test moves it with advance.
func clockAt(at *journal.UnixNano) func() journal.UnixNano {
	return func() journal.UnixNano { return journal.UnixNano(atomic.LoadInt64((*int64)(at))) }
}

// advance moves a clock of clockAt.
func advance(at *journal.UnixNano, by journal.UnixNano) { atomic.AddInt64((*int64)(at), int64(by)) }

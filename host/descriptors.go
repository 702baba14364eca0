package host

import (
	"cmp"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// The number of descriptors of a process is limited, and a journal that cannot open a file fails. So
// connections get what is left after the needs of the journal, which grow, and of the process. The
// code that accepts a connection takes one descriptor from the host's account, and closes some connections when
// the journal needs more. In addition the host keeps some descriptors open as a reserve. It closes them when a
// failed journal is closed, which writes files, and opened again, so that this succeeds even if other code in
// the process has opened descriptors.

const (
	// processDescriptors are for the process, beyond those that are open when the host is opened: listeners,
	// pipes to compiler processes, modules and backups that are being written.
	processDescriptors = 24
	// spareDescriptors are kept open as the reserve for the journal. They count as part of its room to grow.
	spareDescriptors = 12
	// minConnections is the number of connections for which there must always be descriptors, however many
	// the journal needs.
	minConnections = 8
	// openingRoom is how many descriptors fewer the journal may have while it grows than when it is opened.
	// So the host can be opened again even if the journal has used all that it may have.
	openingRoom = 24
	// tableDescriptors is the number of descriptors for which the system's table is enlarged at the start. It
	// takes 8 bytes for each.
	tableDescriptors = 16 << 10
	// descriptorsEvery is the interval at which the journal's need is measured.
	descriptorsEvery = time.Second
)

// descriptors shares the descriptors of the process, and holds the reserve for the journal.
type descriptors struct {
	dir     string          // of the journal
	limit   int64           // of the process; 0: unknown
	process int64           // of the process without journal and connections
	account *budget.Account // of the process and the journal

	mu    sync.Mutex // guards spare
	spare []*os.File
}

// newDescriptors finds out how many descriptors there are to share. It fails if there are too few for a host
// on this directory. The journal must not be open yet.
func newDescriptors(dir string, all *budget.Account) (*descriptors, error) {
	d := &descriptors{dir: dir, limit: all.Limit(budget.Descriptors), process: openNow() + processDescriptors}
	if d.limit == 0 {
		d.limit = descriptorLimit()
		all.SetLimit(budget.Descriptors, d.limit)
	}
	d.account = all.Child("journal and process", nil)
	journal, err := storage.FilesOf(dir)
	if err != nil {
		d.account.Close()
		return nil, openError(err)
	}
	d.account.Set(budget.Descriptors, d.process+int64(journal))
	if minimum := d.process + int64(journal) + minConnections; d.limit > 0 && d.limit < minimum {
		d.account.Close()
		return nil, &service.Error{Op: "open", Kind: service.KindInvalid, Resource: budget.Descriptors.String(),
			Used: minimum, Limit: d.limit,
			Message: fmt.Sprintf("the process may have %d descriptors and needs at least %d: %d for the journal, %d "+
				"for itself and %d for connections; raise the limit of open files (ulimit -n)",
				d.limit, minimum, journal, d.process, minConnections)}
	}
	widenTable(min(cmp.Or(d.limit, tableDescriptors), tableDescriptors))
	d.keep()
	return d, nil
}

// openNow counts the open descriptors of the process, on systems that tell.
func openNow() int64 {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 16 // standard streams, and what the runtime needs
	}
	return int64(len(open))
}

// forJournal is how many descriptors the journal may use; 0: no limit.
func (d *descriptors) forJournal() int {
	if d.limit == 0 {
		return 0
	}
	return int(max(1, d.limit-d.process-minConnections-openingRoom))
}

// measure updates the account with the journal's present need.
func (d *descriptors) measure() {
	if n, err := storage.FilesOf(d.dir); err == nil { // otherwise the last value stays
		d.account.Set(budget.Descriptors, d.claim(int64(n)))
	}
}

// claim is how many of all descriptors belong to the process and to a journal that needs so many.
func (d *descriptors) claim(journal int64) int64 {
	if d.limit == 0 {
		return d.process + journal
	}
	return min(d.process+journal, d.limit-minConnections)
}

// keep opens spare descriptors, as many as possible up to spareDescriptors.
func (d *descriptors) keep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.spare) < spareDescriptors {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return // the next measurement tries again
		}
		d.spare = append(d.spare, f)
	}
}

// yield closes the spare descriptors, for a journal that is being closed or opened.
func (d *descriptors) yield() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.spare {
		_ = f.Close() // nothing was written
	}
	d.spare = nil
}

// close closes the spare descriptors and empties the account.
func (d *descriptors) close() {
	d.yield()
	d.account.Close()
}

// descriptorLoop follows the journal's need of descriptors, and opens spare ones that could not be opened
// before. Close waits for it.
func (h *Host) descriptorLoop() {
	for lifecycle.Sleep(h.life, descriptorsEvery) {
		h.files.measure()
		h.keepSpare()
	}
}

// keepSpare opens spare descriptors if the journal is open and its services, which read their modules, have
// been started. It holds mu, so that recover can yield them for a failed journal afterwards.
func (h *Host) keepSpare() {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.why != nil || h.core == nil {
		return
	}
	select {
	case <-h.core.registry.Tried():
		h.files.keep()
	default:
	}
}

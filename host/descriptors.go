package host

import (
	"cmp"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// A process may have so many descriptors, and a journal that cannot open a file fails. So
// connections get what is left when the journal has what it needs, which grows with it, and
// the process has some for itself; whoever accepts connections takes one for each from the
// host's account, and closes some when the journal has come to need more. Beside that the host keeps some open for
// nothing: it gives them up when the journal is closed, which writes files, and opened again, so that not even
// descriptors that somebody else in the process has opened keep it from that.

const (
	// processDescriptors are those of the process beside the ones that it has when a host is
	// opened: listeners, pipes to compiler processes, modules and backups that are written.
	processDescriptors = 24
	// spareDescriptors are kept open for the journal; they are in what it needs to grow.
	spareDescriptors = 12
	// leastConnections is how many connections there have to be descriptors for: they are left
	// to connections whatever the journal has come to need.
	leastConnections = 8
	// openingRoom is how many fewer the journal may have while it grows than when it is opened,
	// so that a host whose journal is full of files can be opened again.
	openingRoom = 24
	// tableDescriptors is for how many descriptors the system has a table from the start on; it
	// takes 8 bytes for each.
	tableDescriptors = 16 << 10
	// descriptorsEvery is how often the journal's need is looked at.
	descriptorsEvery = time.Second
)

// descriptors keeps descriptors for the journal.
type descriptors struct {
	dir     string          // of the journal
	limit   int64           // of the process; 0: not known
	process int64           // for all but journal and connections
	account *budget.Account // of the process and the journal

	mu    sync.Mutex // guards spare
	spare []*os.File
}

// newDescriptors says how many descriptors there are to share. The error says that there
// are too few for a host on this directory. The caller has not opened the journal yet.
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
	if least := d.process + int64(journal) + leastConnections; d.limit > 0 && d.limit < least {
		d.account.Close()
		return nil, &service.Error{Op: "open", Kind: service.KindInvalid, Resource: budget.Descriptors.String(),
			Used: least, Limit: d.limit,
			Message: fmt.Sprintf("the process may have %d descriptors and needs at least %d: %d for the journal, %d "+
				"for itself and %d for connections; raise the limit of open files (ulimit -n)",
				d.limit, least, journal, d.process, leastConnections)}
	}
	widenTable(min(cmp.Or(d.limit, tableDescriptors), tableDescriptors))
	d.keep()
	return d, nil
}

// openNow counts the descriptors that the process has open, where that can be seen.
func openNow() int64 {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 16 // standard streams, and what the runtime needs
	}
	return int64(len(open))
}

// forJournal is how many descriptors the journal may use; 0 is no bound.
func (d *descriptors) forJournal() int {
	if d.limit == 0 {
		return 0
	}
	return int(max(1, d.limit-d.process-leastConnections-openingRoom))
}

// measure has the account tell what the journal needs now.
func (d *descriptors) measure() {
	if n, err := storage.FilesOf(d.dir); err == nil { // else it is what it was
		d.account.Set(budget.Descriptors, d.claim(int64(n)))
	}
}

// claim is what the process and a journal that needs so many have of all descriptors.
func (d *descriptors) claim(journal int64) int64 {
	if d.limit == 0 {
		return d.process + journal
	}
	return min(d.process+journal, d.limit-leastConnections)
}

// keep opens spare descriptors, as many as there can be.
func (d *descriptors) keep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.spare) < spareDescriptors {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return // the next try is at the next measurement
		}
		d.spare = append(d.spare, f)
	}
}

// yield closes them, for a journal that is closed or opened.
func (d *descriptors) yield() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.spare {
		_ = f.Close() // nothing was written
	}
	d.spare = nil
}

// close gives everything back.
func (d *descriptors) close() {
	d.yield()
	d.account.Close()
}

// descriptorLoop follows the journal's need of descriptors, and takes the spare ones that
// could not be had before. Close waits for it.
func (h *Host) descriptorLoop() {
	for lifecycle.Sleep(h.life, descriptorsEvery) {
		h.files.measure()
		h.keepSpare()
	}
}

// keepSpare has spare descriptors kept if the journal is open and its services, which read
// their modules, have been started. It holds mu, so that what yields them for a journal that
// has failed comes after it.
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

package host

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// defaultReserve is the room that is kept for the journal on its disk: what its storage
// keeps by default.
const defaultReserve = 1 << 30

// diskDefaults sets the bounds of the disk that come from its size: a service's log may
// have a quarter of it, and so may all modules.
func (o Options) diskDefaults() Options {
	size, _, known, err := storage.Disk(existing(o.Dir))
	if err != nil || !known {
		return o // it is not known, and the host finds out why when it writes
	}
	if o.Limits.DiskBytes == 0 {
		o.Limits.DiskBytes = max(min(service.DefaultLimits().DiskBytes, size/4), 64<<20)
	}
	if o.Budget.ModuleBytes == 0 {
		o.Budget.ModuleBytes = max(size/4, 256<<20)
	}
	return o
}

// existing is the directory, or the nearest one above that is there.
func existing(dir string) string {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
	}
}

// reserve is what is kept for the journal on its disk, in bytes.
func (h *Host) reserve() int64 {
	switch reserve := h.opt.ReserveBytes; {
	case reserve < 0 || reserve == 0 && h.ownStorage:
		return 0 // nobody knows what another storage needs, and where
	case reserve == 0:
		return defaultReserve
	default:
		return reserve
	}
}

// moduleRoom says whether so many bytes of a module may be written: what is kept for the
// journal is not theirs.
func (h *Host) moduleRoom(bytes int64) error {
	reserve := h.reserve()
	size, free, known, err := storage.Disk(modulesDir(h.opt.Dir))
	if err != nil {
		return service.Errorf(service.KindInternal, "the room on the disk is not known: %w", err)
	}
	if !known || free-reserve >= bytes {
		return nil
	}
	return &service.Error{Kind: service.KindQuota, Resource: budget.DiskBytes.String(), Used: size - free,
		Limit: size - reserve,
		Message: fmt.Sprintf("the disk has %d MiB left, of which %d are kept for the journal, and %d bytes are to be "+
			"written; make room", free>>20, reserve>>20, bytes)}
}

// diskEvery is how often the disk is measured.
const diskEvery = time.Second

// diskLoop measures the disk, on which others write, too. Close waits for it.
func (h *Host) diskLoop() {
	for lifecycle.Sleep(h.life, diskEvery) {
		h.measureDisk()
	}
}

// boundDisk has modules and logs bounded by what they have and what the disk has left
// beside the journal's reserve, so that services that write all they may are refused before
// the journal is, and those that have written little go on. What is left counts, and not what
// the disk has: an index, code and what others write take of it, too.
func (h *Host) boundDisk() {
	limit := h.opt.Budget.DiskBytes
	if !h.ownStorage { // which has its logs nobody knows where
		if _, free, known, err := storage.Disk(JournalDir(h.opt.Dir)); err == nil && known {
			most := max(1, h.budget.Used(budget.DiskBytes)+free-h.reserve())
			if limit == 0 || most < limit {
				limit = most
			}
		}
	}
	h.budget.SetLimit(budget.DiskBytes, limit)
}

// measureDisk has the accounts of the budget tell what logs have on disk now, and what
// there may be.
func (h *Host) measureDisk() {
	c, err := h.reading()
	if err != nil {
		return
	}
	others := int64(0)
	running := map[journal.LogName]*budget.Account{}
	for _, svc := range c.registry.All() {
		running[journal.LogName(svc.Name())] = svc.Account()
	}
	for _, info := range c.journal.Logs() {
		bytes, _ := c.journal.LogBytes(info.Name)
		if account := running[info.Name]; account != nil {
			account.Set(budget.DiskBytes, bytes)
		} else {
			others += bytes
		}
	}
	h.otherLogs.Set(budget.DiskBytes, others)
	h.boundDisk()
}

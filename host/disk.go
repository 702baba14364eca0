package host

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// defaultReserve is the space kept free on the journal's disk: the default of its storage.
const defaultReserve = 1 << 30

// diskDefaults sets the bounds that depend on the size of the disk: a service's log may have a quarter of it,
// and all modules together another quarter.
func (o Options) diskDefaults() Options {
	size, _, known, err := storage.Disk(existing(o.Dir))
	if err != nil || !known {
		return o // unknown; writes will tell
	}
	if o.Limits.DiskBytes == 0 {
		o.Limits.DiskBytes = max(min(service.DefaultLimits().DiskBytes, size/4), 64<<20)
	}
	if o.Budget.ModuleBytes == 0 {
		o.Budget.ModuleBytes = max(size/4, 256<<20)
	}
	return o
}

// existing is the directory, or its nearest ancestor that exists.
func existing(dir string) string {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
	}
}

// reserve is the space kept free on the journal's disk, in bytes.
func (h *Host) reserve() int64 {
	switch reserve := h.opt.ReserveBytes; {
	case reserve < 0 || reserve == 0 && h.ownStorage:
		return 0 // the needs of another storage are unknown
	case reserve == 0:
		return defaultReserve
	default:
		return reserve
	}
}

// moduleRoom returns nil if so many bytes of a module may be written. Modules must not use the journal's
// reserve.
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

// diskEvery is the interval at which the disk is measured.
const diskEvery = time.Second

// diskLoop measures the disk, as other programs write to it, too. Close waits for it.
func (h *Host) diskLoop() {
	for lifecycle.Sleep(h.life, diskEvery) {
		h.measureDisk()
	}
}

// boundDisk bounds modules and logs by what they have plus what the disk has left beyond the journal's
// reserve. So services that write as much as they may are refused before the journal fails, and services that
// have written little go on. The bound follows free space and not the size of the disk: the index, code and
// other programs also take space.
func (h *Host) boundDisk() {
	limit := h.opt.Budget.DiskBytes
	if !h.ownStorage { // another storage does not tell where its logs are
		if _, free, known, err := storage.Disk(JournalDir(h.opt.Dir)); err == nil && known {
			bound := max(1, h.budget.Used(budget.DiskBytes)+free-h.reserve())
			if limit == 0 || bound < limit {
				limit = bound
			}
		}
	}
	h.budget.SetLimit(budget.DiskBytes, limit)
}

// measureDisk updates the accounts with the present size of the logs on disk, and their bound.
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

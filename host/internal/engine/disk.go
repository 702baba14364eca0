package engine

import (
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// disk bounds what a service writes: the size of its log on disk, and how fast that grows. The
// shard checks both before it calls the guest, so that no outcome is computed that cannot be
// written. The size of an outcome is known only afterwards: each shard may exceed a bound by one
// outcome, and the rate then lets nothing be written until that debt is paid.
type disk struct {
	account *budget.Account
	rate    int64 // bytes per second

	mu   sync.Mutex // guards all below
	left int64      // bytes that may be written now; negative while there is a debt
	seen journal.UnixNano
}

// diskBurst is how many seconds' worth of the rate a service may write at once.
const diskBurst = 2

// diskParts is the divisor of the reserved part: the last 1/diskParts of the host's disk is only
// for services whose logs are smaller than what is left.
const diskParts = 8

// rateResource is the name of the rate in refusals.
const rateResource = "disk_bytes_per_second"

func newDisk(account *budget.Account, rate int64) *disk {
	return &disk{account: account, rate: rate, left: diskBurst * rate}
}

// wait returns how long it takes until something may be written; 0: it may be written now.
func (d *disk) wait(now journal.UnixNano) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	burst := diskBurst * d.rate
	// No time has passed at the first call, or when the clock was set back.
	if passed := now - d.seen; d.seen > 0 && passed > 0 {
		d.left += int64(min(float64(burst-d.left), float64(d.rate)*time.Duration(passed).Seconds()))
	}
	d.seen = now
	if d.left > 0 {
		return 0
	}
	return time.Duration(float64(1-d.left)/float64(d.rate)*float64(time.Second)) + 1
}

// diskUnit is the size in bytes at which an outcome counts double.
const diskUnit = 1 << 20

// spent counts the bytes of an outcome that was appended to the log. An outcome is written in one
// piece, and the outcomes of other services wait meanwhile: so a large one counts more than the
// same bytes in small ones.
func (d *disk) spent(bytes int) {
	n := int64(bytes)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left -= n + n*n/diskUnit
}

// mayWrite returns nil if the service may write now, and otherwise the reason.
func (s *shard) mayWrite(now journal.UnixNano) *service.Error {
	d := s.engine.disk
	if wait := d.wait(now); wait > 0 {
		s.counters.overloaded.Add(1)
		err := s.engine.errorf(service.KindOverloaded, "the service has written more to disk than the %d bytes a "+
			"second that it may; nothing was written; try again later", d.rate)
		err.Resource, err.Used, err.Limit, err.RetryAfter = rateResource,
			d.rate+int64(wait.Seconds()*float64(d.rate)), d.rate, max(minRetry, wait)
		return err
	}
	bytes, _ := s.engine.options.Log.LogBytes(s.name)
	d.account.Set(budget.DiskBytes, bytes)
	err := d.account.CheckShare(budget.DiskBytes, 1, diskParts)
	if err == nil {
		return nil
	}
	own := s.engine.own(err)
	if limit := d.account.Limit(budget.DiskBytes); limit > 0 && bytes >= limit {
		own.Message = fmt.Sprintf("the service's log has %d bytes on disk and may have %d; nothing was written; "+
			"a retention deletes its first events, or raise disk_bytes", bytes, limit)
	}
	return own
}

// commitBytes estimates the size of a commit in the log, before compression.
func commitBytes(c *journal.Commit) int {
	const around = 64 // overhead of a record, and of an event
	n := around + len(c.Command.Key) + len(c.Command.Type) + len(c.Command.ID) + len(c.Command.Data) +
		len(c.Command.Metadata) + len(c.Command.Reply)
	for i := range c.Events {
		e := &c.Events[i]
		n += around + len(e.Type) + len(e.ContentType) + len(e.Data) + len(e.Metadata)
	}
	return n
}

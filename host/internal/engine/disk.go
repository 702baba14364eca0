package engine

import (
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// disk bounds what a service writes: the bytes that its log has, and how fast it grows.
// Both are looked at before a guest runs, so that nothing is decided that cannot be
// kept. What an outcome takes is known only after that: so each shard may go beyond
// by one outcome, and the rate makes up for it by waiting until the debt is paid.
type disk struct {
	account *budget.Account
	rate    int64 // bytes a second

	mu   sync.Mutex // guards what follows
	left int64      // bytes that may be written now; below zero after an outcome that took more
	seen journal.UnixNano
}

// diskBurst is how many seconds' worth of bytes a service may write at once.
const diskBurst = 2

// diskParts is what part of the host's disk, the last one of so many, is for the services
// that have no more on it than what is left.
const diskParts = 8

// rateResource is the name of the rate in refusals.
const rateResource = "disk_bytes_per_second"

func newDisk(account *budget.Account, rate int64) *disk {
	return &disk{account: account, rate: rate, left: diskBurst * rate}
}

// wait is how long it takes until something may be written; 0: now.
func (d *disk) wait(now journal.UnixNano) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	most := diskBurst * d.rate
	// A first look, and a clock that was set back, are no time.
	if passed := now - d.seen; d.seen > 0 && passed > 0 {
		d.left += int64(min(float64(most-d.left), float64(d.rate)*time.Duration(passed).Seconds()))
	}
	d.seen = now
	if d.left > 0 {
		return 0
	}
	return time.Duration(float64(1-d.left)/float64(d.rate)*float64(time.Second)) + 1
}

// diskUnit is the size of an outcome that counts twice.
const diskUnit = 1 << 20

// spent counts the bytes of an outcome that was handed to the log. It is written in one
// piece, and those of others wait meanwhile: so the more of a piece it is, the more it
// counts than as many bytes in small ones.
func (d *disk) spent(bytes int) {
	n := int64(bytes)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left -= n + n*n/diskUnit
}

// mayWrite returns nil, or why the service may not write at present.
func (s *shard) mayWrite(now journal.UnixNano) *service.Error {
	d := s.engine.disk
	if wait := d.wait(now); wait > 0 {
		s.counters.overloaded.Add(1)
		err := s.engine.errorf(service.KindOverloaded, "the service has written more to disk than the %d bytes a second that it may; nothing was written; try again later", d.rate)
		err.Resource, err.Used, err.Limit, err.RetryAfter = rateResource, d.rate+int64(wait.Seconds()*float64(d.rate)), d.rate, max(minRetry, wait)
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
		own.Message = fmt.Sprintf("the service's log has %d bytes on disk and may have %d; nothing was written; a retention deletes its first events, or raise disk_bytes", bytes, limit)
	}
	return own
}

// commitBytes is about what a commit takes in the log, before it is packed.
func commitBytes(c *journal.Commit) int {
	const around = 64 // a record's own, and an event's
	n := around + len(c.Command.Key) + len(c.Command.Type) + len(c.Command.ID) + len(c.Command.Data) + len(c.Command.Metadata) + len(c.Command.Reply)
	for i := range c.Events {
		e := &c.Events[i]
		n += around + len(e.Type) + len(e.ContentType) + len(e.Data) + len(e.Metadata)
	}
	return n
}

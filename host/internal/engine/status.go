package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// counters count what one shard has done. The shard's goroutine and the log's completion goroutine
// write them; any goroutine may read them.
type counters struct {
	committed, events, rejected, failed, overloaded, repeated atomic.Uint64
	unknown, queries, hydrated, resets, recycled, fuel        atomic.Uint64
	snapshotsTaken, snapshotsUsed, snapshotsRefused           atomic.Uint64
	resident, memory                                          atomic.Int64
}

func (c *counters) addTo(sum *service.Counters) {
	sum.Committed += c.committed.Load()
	sum.Events += c.events.Load()
	sum.Rejected += c.rejected.Load()
	sum.Failed += c.failed.Load()
	sum.Overloaded += c.overloaded.Load()
	sum.Repeated += c.repeated.Load()
	sum.Unknown += c.unknown.Load()
	sum.Queries += c.queries.Load()
	sum.Hydrated += c.hydrated.Load()
	sum.Resets += c.resets.Load()
	sum.Recycled += c.recycled.Load()
	sum.SnapshotsTaken += c.snapshotsTaken.Load()
	sum.SnapshotsUsed += c.snapshotsUsed.Load()
	sum.SnapshotsRefused += c.snapshotsRefused.Load()
	sum.Fuel += c.fuel.Load()
}

func (s *shard) status() service.ShardStatus {
	now := s.health.Load()
	return service.ShardStatus{
		State: now.state, Attempts: now.Attempts,
		Queued:      int(s.mail.queued.Load()),
		QueuedBytes: s.mail.bytes.Load(),
		Resident:    int(s.counters.resident.Load()),
		MemoryBytes: s.counters.memory.Load(),
	}
}

// Bounds of RetryAfter.
const (
	minRetry = 10 * time.Millisecond
	maxRetry = 10 * time.Second
	// fullRetry is for a full disk, on which the operator has to free space.
	fullRetry = 5 * time.Second
)

// pace measures how fast a shard carries out tasks. The shard's goroutine writes it, once a group
// of tasks; any goroutine may read it.
type pace struct {
	perTask atomic.Int64 // nanoseconds, a moving average
	since   atomic.Int64 // start of the group in progress, in nanoseconds after origin; 0: none
	origin  time.Time
}

func (p *pace) begin() time.Time {
	now := time.Now()
	p.since.Store(max(1, int64(now.Sub(p.origin))))
	return now
}

func (p *pace) end(began time.Time, tasks int) {
	p.since.Store(0)
	each := int64(time.Since(began)) / int64(tasks)
	if old := p.perTask.Load(); old > 0 {
		// The larger the group, the more it weighs.
		weight := min(int64(tasks), 32)
		each = (old*(64-weight) + each*weight) / 64
	}
	p.perTask.Store(max(1, each))
}

// retryAfter is the time after which about half of the queued tasks should be done. If the group
// in progress takes longer than usual, its time so far counts.
func (p *pace) retryAfter(queued int64) time.Duration {
	wait := time.Duration(p.perTask.Load()) * time.Duration(queued/2+1)
	if since := p.since.Load(); since > 0 {
		wait = max(wait, time.Since(p.origin)-time.Duration(since))
	}
	return min(max(wait, minRetry), maxRetry)
}

// inflight counts the requests that wait for the log.
type inflight struct {
	n    atomic.Int64
	idle chan struct{} // gets a token when n becomes 0
}

func (f *inflight) add() { f.n.Add(1) }

func (f *inflight) done() {
	if f.n.Add(-1) == 0 {
		select {
		case f.idle <- struct{}{}:
		default:
		}
	}
}

// wait returns when nothing is in flight. The caller makes sure that nothing is added meanwhile.
func (f *inflight) wait(ctx context.Context) error {
	for f.n.Load() > 0 {
		select {
		case <-f.idle:
		case <-ctx.Done():
			if n := f.n.Load(); n > 0 {
				return fmt.Errorf("%d answers still rest with it: %w", n, context.Cause(ctx))
			}
		}
	}
	return nil
}

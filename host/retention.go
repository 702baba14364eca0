package host

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/internal/registry"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
)

// Retain deletes the first events of a service, in whole batches. Entities that lose events continue from
// snapshots, which are written to the log before; the service is asked for the missing ones. If some cannot
// be had, the events of these entities become kept events, and Kept counts them. Kept events can be read by
// entity and take part in hydrations until there is a snapshot. Events beyond MaxKept stay in the log, with
// everything after the first of them; Held counts them. If that is all events, the error is KindConflicting,
// and nothing is deleted.
//
// A service that is stopped, or does not start, takes no snapshots, so only existing ones count. Unless
// MaxKept is set, it gets no kept events: these are for entities of which no snapshot can be had.
//
// Positions and versions do not change. A snapshot has its module's state schema. A module with another
// schema cannot hydrate an entity whose events are deleted (KindFault with code history_deleted).
func (h *Host) Retain(ctx context.Context, name service.Name, r service.Retention) (journal.Retained, error) {
	if r.Before == 0 && r.OlderThan == 0 {
		return journal.Retained{},
			service.Errorf(service.KindInvalid, "neither a position nor an age bounds what shall be deleted")
	}
	if r.OlderThan < 0 {
		return journal.Retained{}, service.Errorf(service.KindInvalid, "the age %s is negative", r.OlderThan)
	}
	c, err := h.open()
	if err != nil {
		return journal.Retained{}, err
	}
	svc, err := c.registry.Get(name)
	if err != nil {
		return journal.Retained{}, err
	}
	turn := h.readers.turn(ctx, name)
	defer turn.End()
	pace := func() error {
		err := turn.Begin(ctx)
		turn.Rest() // nothing is reported at the end of the last batch
		return turnError(name, err)
	}
	if err := pace(); err != nil {
		return journal.Retained{}, err
	}
	module, schema := c.registry.Module(svc)
	o := journal.Retention{
		Pace:   pace,
		Before: r.Before, Through: r.Through, MaxKept: r.MaxKept,
		DryRun: r.DryRun, Force: r.Force, Progress: stageProgress(r.Progress),
		Schema: schema, Module: journal.Digest(module),
		Hold: func(first journal.Position) (func(), error) {
			return c.registry.HoldModule(ctx, svc, module, first)
		},
		Cover: func(ctx context.Context, key string, _ journal.Version) error {
			return cover(ctx, func(done func(error)) error { return svc.Snapshot(service.Key(key), done) })
		},
	}
	if st := svc.State(); o.MaxKept == 0 && (st == service.StateStopped || st == service.StateFailed) {
		o.MaxKept = -1
	}
	if r.OlderThan > 0 {
		o.OlderThan = max(unixNano(h.now().Add(-r.OlderThan)), 1) // 0 would mean no bound
	}
	done, err := c.journal.Retain(ctx, journal.LogName(name), o)
	if err == nil && !r.DryRun && done.Batches > 0 {
		c.registry.LogChanged(svc)
		h.opt.Logger.Info("the first events of a service were deleted", "service", string(name), "events", done.Events,
			"first", uint64(done.First), "entities", done.Entities, "kept_events", done.KeptEvents, "kept_of",
			done.KeptOf)
	}
	return done, stoppedRetention(svc, keepError("retain", name, err))
}

// stageProgress adapts a progress function for the journal; nil stays nil.
func stageProgress(to func(service.Progress)) func(stage string, done, total uint64) {
	if to == nil {
		return nil
	}
	return func(stage string, done, total uint64) {
		to(service.Progress{Stage: stage, Done: int64(done), Total: int64(total)})
	}
}

// stoppedRetention adds to an error that a stopped service takes no snapshots.
func stoppedRetention(svc *registry.Service, err error) error {
	var refused *service.Error
	if svc.State() != service.StateStopped || !errors.As(err, &refused) || refused.Kind != service.KindConflicting {
		return err
	}
	own := *refused
	own.Message += "; the service is stopped and takes no snapshots: deploy it again, or force the retention"
	return &own
}

// busy is the wait for a service, or the journal, that cannot take a snapshot at present. coverTime bounds
// all waits for one entity; after that the entity counts as one without a snapshot.
var busy = lifecycle.Backoff{First: 50 * time.Millisecond, Max: time.Second}

const coverTime = 10 * time.Second

// cover takes a snapshot, and waits while the service or the journal is busy. ask is
// [registry.Service.Snapshot] of the entity.
func cover(ctx context.Context, ask func(done func(error)) error) error {
	done := make(chan error, 1)
	begun := time.Now()
	for tries := 1; ; tries++ {
		err := ask(func(err error) { done <- err })
		if err == nil {
			select {
			case err = <-done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err == nil || service.KindOf(err) != service.KindOverloaded || time.Since(begun) >= coverTime {
			return err
		}
		if !lifecycle.Sleep(ctx, busy.Wait(tries, 0)) {
			return ctx.Err()
		}
	}
}

// Batches writes a service's log as it is on disk, up to the batch with a sequence (0: to its end), as a file
// that [backup.Import] reads.
func (h *Host) Batches(ctx context.Context, name service.Name, w io.Writer, through uint64) (*backup.Manifest, error) {
	c, _, err := h.readService(name)
	if err != nil {
		return nil, err
	}
	logs := &pacedLogs{Journal: c.journal, turn: h.readers.turn(ctx, name), name: name}
	m, err := backup.WriteBatches(ctx, w, logs, journal.LogName(name), through, backup.Options{})
	return m, keepError("write batches", name, err)
}

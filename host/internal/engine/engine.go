// Package engine runs the commands and queries of one service. Its keys are
// divided among shards; a shard is one guest, its mailbox, and the one goroutine
// that owns both.
//
// The way of a command: Submit checks it and puts it into the mailbox of the
// shard that owns its key. The shard holds its data to the schema, hydrates the entity if it is not in the
// guest, calls the guest, hands the outcome to the log and goes on with the next
// command at once: its state is now ahead of the disk, speculative. When the
// outcome is on disk, the log's completion goroutine publishes it and releases
// the reply, in this order. Whatever else tells of a state (a rejection, a
// version conflict, a query's answer) waits until that state is on disk.
//
// When the log fails to write an outcome, every state in the shard may rest on
// what is not on disk. The client learns that the outcome is unknown; the shard
// resets its guest and forgets all entities before its next task. What it
// did in between is void, too: the log refuses it, as it rests on what was lost.
//
// A hydration that takes long goes in steps, between which the shard carries out the tasks
// of other entities; those of this one wait until it is there. See hydration. An entity whose
// hydration fails is refused for a while, and no other is concerned. See faultTable.
//
// A shard makes its guest when its first task comes. Tasks that come meanwhile wait in
// the mailbox, each no longer than its deadline.
//
// When the guest breaks (a trap, a violated contract), it is reset; outcomes
// already handed to the log are not concerned, as hydration sees them.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/internal/schema"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Options are what an engine is made of.
type Options struct {
	// Spec is the service. Zero limits and settings have their defaults.
	Spec service.Spec
	// Manifest is that of Spec.Module, checked by [service.ParseManifest].
	Manifest *abi.Manifest
	// Schemas are what the commands and queries of Manifest take. Default: anything.
	Schemas *schema.Set
	// NewGuest makes the sandbox of a shard when the shard is first used, and again when
	// that failed. Shards call it at the same time, each on its goroutine; ctx ends when
	// the engine cannot wait any longer. The guest belongs to the engine: Stop closes it.
	NewGuest func(ctx context.Context, shard int) (Guest, error)
	// Retry says when a sandbox that could not be made, or reset, is tried again: with
	// the first request after the wait. Default: 10 ms to 5 s.
	Retry lifecycle.Backoff
	// Patience bounds how long a request without a deadline of its own waits for a
	// sandbox that starts. Default 1 min.
	Patience time.Duration
	// Log keeps the outcomes.
	Log Log
	// Publish hears of every commit. Default: nobody does.
	Publish Publisher
	// Account is the service's in the host's budget; its limit of budget.DiskBytes bounds
	// the log. Default: one without limits.
	Account *budget.Account
	// Clock gives commands their time. Default: the system's clock.
	Clock func() journal.UnixNano
	// Logger gets what an operator should see. Default: nothing is logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	o.Spec = o.Spec.WithDefaults()
	if o.Publish == nil {
		o.Publish = nobody{}
	}
	if o.Account == nil {
		o.Account = budget.New(nil)
	}
	if o.Clock == nil {
		o.Clock = func() journal.UnixNano { return journal.UnixNano(time.Now().UnixNano()) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Retry == (lifecycle.Backoff{}) {
		o.Retry = lifecycle.Backoff{First: defaultFirstRetry, Max: defaultMaxRetry}
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	o.Logger = o.Logger.With("service", string(o.Spec.Service))
	return o
}

// validate reports everything that is wrong at once.
func (o Options) validate() error {
	var errs []error
	if err := o.Spec.Validate(); err != nil {
		errs = append(errs, err)
	}
	if o.Manifest == nil {
		errs = append(errs, errors.New("no manifest"))
	}
	if o.Log == nil {
		errs = append(errs, errors.New("no log"))
	}
	if o.NewGuest == nil {
		errs = append(errs, errors.New("no way to make guests"))
	}
	if o.Retry.First <= 0 || o.Retry.Max < o.Retry.First || o.Patience < 0 {
		errs = append(errs, errors.New("waits that are not above 0, or do not grow"))
	}
	if err := errors.Join(errs...); err != nil {
		return service.Errorf(service.KindInvalid, "engine of %s: %w", o.Spec.Service, err)
	}
	return nil
}

type nobody struct{}

func (nobody) Publish(journal.Receipt, *journal.Commit) {}

// Engine runs one service. All methods are safe for concurrent use.
type Engine struct {
	options  Options
	manifest *service.ManifestIndex
	shards   []*shard
	json     bool // the data of commands and queries is JSON
	inflight inflight
	disk     *disk

	life   lifecycle.Life
	cancel context.CancelCauseFunc // of the shards' context; set by Start

	mu           sync.Mutex              // guards all below
	cancelStarts context.CancelCauseFunc // of the context of starts; set by Start
	startsOver   bool                    // there shall be no starts any more
}

// New makes an engine. It does nothing until Start, and makes no sandbox before one is
// needed.
func New(o Options) (*Engine, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	e := &Engine{options: o, manifest: service.NewManifestIndex(o.Manifest), disk: newDisk(o.Account, o.Spec.Limits.DiskRate)}
	e.json = service.IsJSON(e.manifest.Encoding())
	e.inflight.idle = make(chan struct{}, 1)
	for i := range o.Spec.Settings.Shards {
		e.shards = append(e.shards, newShard(e, i))
	}
	return e, nil
}

// Start takes commands from now on. ctx bounds the start only.
func (e *Engine) Start(ctx context.Context) error {
	return e.life.Start(func() error {
		run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		e.cancel = cancel
		starts, cancelStarts := context.WithCancelCause(run)
		e.mu.Lock()
		e.cancelStarts = cancelStarts
		if e.startsOver {
			cancelStarts(errPatience)
		}
		e.mu.Unlock()
		for _, s := range e.shards {
			s.ctx, s.starts = run, starts
			s.mail.setOpen(true)
			e.life.Go(s.run)
		}
		return nil
	})
}

// errPatience ends what is left when Stop's context has ended.
var errPatience = errors.New("the engine has to stop now")

// Stop ends the engine in stages: no new commands, those in the mailboxes are
// carried out, what was handed to the log is waited for, the guests are closed.
// Each command has had its one answer when Stop returns nil.
//
// When ctx ends earlier, the commands that have not begun end as KindUnavailable
// and the calls under way are canceled; Stop returns an error. Outcomes that the
// log has been given then get their answer from the log, when it knows.
func (e *Engine) Stop(ctx context.Context) error {
	return e.life.Stop(ctx, func(ctx context.Context, started bool) error {
		err := lifecycle.Stop(ctx,
			lifecycle.Stage{Name: "finish mailboxes", Run: e.finishMailboxes},
			lifecycle.Stage{Name: "wait for the journal", Run: e.inflight.wait},
			lifecycle.Stage{Name: "close guests", Run: e.closeGuests},
		)
		if err != nil {
			return fmt.Errorf("stop engine of %s: %w", e.options.Spec.Service, err)
		}
		return nil
	})
}

func (e *Engine) finishMailboxes(ctx context.Context) error {
	for _, s := range e.shards {
		s.mail.setOpen(false)
	}
	err := e.life.Wait(ctx)
	if e.cancel != nil {
		e.cancel(errPatience)
	}
	if err != nil {
		// Calls end within their limits at the latest, so this wait is bounded.
		return errors.Join(err, e.life.Wait(context.WithoutCancel(ctx)))
	}
	return nil
}

func (e *Engine) closeGuests(ctx context.Context) error {
	var errs []error
	for _, s := range e.shards {
		s.residents.forget() // the shard's goroutine has ended
		if s.guest != nil {
			errs = append(errs, s.guest.Close(context.WithoutCancel(ctx)))
		}
	}
	return errors.Join(errs...)
}

// Submit hands a command in and never blocks. If it returns an error, the command
// was refused and done is not called. Otherwise done is called exactly once: with
// a reply once the command's events are on disk and published, or with a
// [*service.Error] that says what became of it. An empty command id is replaced
// by a random one.
//
// done runs on a goroutine that others wait for and must not block, nor call
// Stop. The command's slices must not change any more, even after done:
// subscribers read them.
func (e *Engine) Submit(c service.Command, done func(service.Reply, error)) error {
	typ, err := e.checkCommand(&c)
	if err != nil {
		return err
	}
	t := &task{command: c, typ: typ, size: int64(len(c.Data) + len(c.Metadata)), reply: done}
	return e.put(t)
}

// Query hands a query in; it is as Submit in all else. The answer comes when the
// state it rests on is on disk.
func (e *Engine) Query(q service.Query, done func(service.QueryReply, error)) error {
	typ, err := e.checkQuery(&q)
	if err != nil {
		return err
	}
	t := &task{typ: typ, size: int64(len(q.Data)), answer: done,
		command: service.Command{Service: q.Service, Key: q.Key, Type: q.Type, Data: q.Data, Deadline: q.Deadline, Gone: q.Gone, Claim: q.Claim, Carrier: q.Carrier}}
	return e.put(t)
}

// Snapshot hands in that a snapshot of an entity's state be put into the log, as it is
// when the entity's shard comes to it; it is as Submit in all else.
func (e *Engine) Snapshot(key service.Key, done func(error)) error {
	return e.put(&task{command: service.Command{Service: e.options.Spec.Service, Key: key}, snapshot: done})
}

func (e *Engine) put(t *task) error {
	s := e.shards[shardOf(t.command.Key, len(e.shards))]
	t.shard = s
	if err := t.expect(); err != nil {
		return err
	}
	t.command.Claim.Hold(t)
	admitted := s.mail.put(t)
	if admitted == admissionAdmitted {
		return nil
	}
	if t.timer != nil {
		t.timer.Stop()
		if !t.command.Claim.Refuse() {
			return nil // the timer was faster, and has answered
		}
	}
	switch {
	case admitted == admissionClosed:
		return e.errorf(service.KindUnavailable, "the service is not taking commands now")
	case !s.health.up():
		err := e.errorf(service.KindUnavailable, "the service's sandbox is starting, and as many commands wait for it as may; nothing was written")
		err.RetryAfter = startRetry
		return err
	default:
		s.counters.overloaded.Add(1)
		err := e.errorf(service.KindOverloaded, "too many commands are waiting for this part of the service's keys")
		err.Resource, err.Used, err.Limit = "mailbox_commands", s.mail.queued.Load(), s.mail.maxTasks
		if admitted == admissionLarge {
			err.Resource, err.Used, err.Limit = "mailbox_bytes", s.mail.bytes.Load(), s.mail.maxBytes
		}
		err.RetryAfter = s.pace.retryAfter(s.mail.queued.Load())
		return err
	}
}

// Status is what the shards do now, and what the engine has done since it was
// made. It may be called at any time.
func (e *Engine) Status() ([]service.ShardStatus, service.Counters) {
	var sum service.Counters
	status := make([]service.ShardStatus, len(e.shards))
	for i, s := range e.shards {
		status[i] = s.status()
		s.counters.addTo(&sum)
	}
	return status, sum
}

// Faults are the entities that the module has failed over since the engine was made. It may
// be called at any time.
func (e *Engine) Faults() service.EntityFaults {
	var all service.EntityFaults
	for _, s := range e.shards {
		if f := s.faults.status.Load(); f != nil {
			all.Count += f.Count
			all.Latest = append(all.Latest, f.Latest[:min(len(f.Latest), listed-len(all.Latest))]...)
		}
	}
	return all
}

// shardOf finds the shard that owns a key: FNV-1a, so that it is the same in each
// run.
func shardOf(key service.Key, shards int) int {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return int((h ^ h>>32) % uint64(shards))
}

// Package engine runs the commands and queries of one service. The service's keys are divided
// among shards. A shard has one guest, one mailbox, and one goroutine that owns both.
//
// The way of a command: Submit checks it and puts it into the mailbox of the shard that owns its
// key. The shard checks the data against the schema, hydrates the entity if it is not in the
// guest, calls the guest, and appends the outcome to the log. It goes on with the next command at
// once: its state is now speculative, that is, ahead of the disk. When the outcome is on disk, the
// log's completion goroutine publishes it and then releases the reply, in this order. Every other
// answer that depends on a state (a rejection, a version conflict, the answer to a query) waits
// until that state is on disk.
//
// When the log fails to write an outcome, every state in the shard may depend on the lost one. The
// client learns that the outcome is unknown. Before its next task, the shard resets its guest and
// forgets all entities. What it did in between is void, too: the log refuses it, because it
// follows what was lost.
//
// A long hydration is done in steps. Between two steps, the shard carries out the tasks of other
// entities; the tasks of this entity wait until it is resident. See hydration. An entity whose
// hydration fails is refused for a while; other entities are not affected. See faultTable.
//
// A shard makes its guest when its first task comes. Tasks that come meanwhile wait in the
// mailbox, each until its deadline at most.
//
// When the guest breaks (a trap, a violated contract), it is reset. Outcomes that were already
// appended to the log are not affected: hydration reads them.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
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
	// NewGuest makes the sandbox of a shard: when the shard is first used, and again after a
	// failed attempt. Shards call it concurrently, each on its own goroutine. ctx ends when the
	// engine cannot wait any longer. The engine owns the guest: Stop closes it.
	NewGuest func(ctx context.Context, shard int) (Guest, error)
	// Retry is the wait after a failed attempt to make or reset a sandbox. The first request
	// after the wait causes the next attempt. Default: 10 ms to 5 s.
	Retry lifecycle.Backoff
	// Patience bounds how long a request without a deadline waits for a sandbox to start.
	// Default: 1 min.
	Patience time.Duration
	// Log stores the outcomes.
	Log Log
	// Publish is told of every commit. Default: commits are not published.
	Publish Publisher
	// Account is the service's account in the host's budget. Its limit of budget.DiskBytes
	// bounds the log. Default: an account without limits.
	Account *budget.Account
	// Clock gives commands their time. Default: the system clock.
	Clock func() journal.UnixNano
	// Logger gets the messages for the operator. Default: nothing is logged.
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

// validate reports all problems at once.
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
	cancel context.CancelCauseFunc // ends the shards' context; set by Start

	mu             sync.Mutex              // guards all below
	cancelStarts   context.CancelCauseFunc // ends the context of sandbox starts; set by Start
	startsCanceled bool                    // no more sandboxes may start
}

// New makes an engine. Nothing runs before Start, and each sandbox is made when it is first
// needed. An error has kind KindInvalid and names all problems of o.
func New(o Options) (*Engine, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	e := &Engine{options: o, manifest: service.NewManifestIndex(o.Manifest),
		disk: newDisk(o.Account, o.Spec.Limits.DiskRate)}
	e.json = service.IsJSON(e.manifest.Encoding())
	e.inflight.idle = make(chan struct{}, 1)
	for i := range o.Spec.Settings.Shards {
		e.shards = append(e.shards, newShard(e, i))
	}
	return e, nil
}

// Start begins to take commands. ctx bounds the start only; canceling it later has no effect.
func (e *Engine) Start(ctx context.Context) error {
	return e.life.Start(func() error {
		run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		e.cancel = cancel
		starts, cancelStarts := context.WithCancelCause(run)
		e.mu.Lock()
		e.cancelStarts = cancelStarts
		if e.startsCanceled {
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

// errPatience is the cause with which calls and starts are canceled when Stop's context ends.
var errPatience = errors.New("the engine has to stop now")

// Stop ends the engine in stages: it takes no new commands, carries out those in the mailboxes,
// waits for the log, and closes the guests. When Stop returns nil, each command has had its one
// answer.
//
// If ctx ends earlier, commands that have not begun end as KindUnavailable, calls in progress are
// canceled, and Stop returns an error. Outcomes that were already appended get their answer from
// the log, when it knows.
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
		// Calls end within their own limits, so this wait is bounded.
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

// Submit takes a command and never blocks. If it returns an error, the command was refused and
// done is not called. Otherwise done is called exactly once: with a reply, after the command's
// events are on disk and published, or with a [*service.Error] that says what became of the
// command. An empty command id is replaced by a random one.
//
// done runs on a goroutine that serves all commands: it must not block, and must not call Stop.
// The command's slices must never be changed, not even after done: subscribers read them.
func (e *Engine) Submit(c service.Command, done func(service.Reply, error)) error {
	typ, err := e.checkCommand(&c)
	if err != nil {
		return err
	}
	t := &task{command: c, typ: typ, size: int64(len(c.Data) + len(c.Metadata)), reply: done}
	return e.put(t)
}

// Query takes a query; in all else it is like Submit. The answer comes when the state that it
// depends on is on disk.
func (e *Engine) Query(q service.Query, done func(service.QueryReply, error)) error {
	typ, err := e.checkQuery(&q)
	if err != nil {
		return err
	}
	t := &task{typ: typ, size: int64(len(q.Data)), answer: done,
		command: service.Command{Service: q.Service, Key: q.Key, Type: q.Type, Data: q.Data, Deadline: q.Deadline,
			Gone: q.Gone, Claim: q.Claim, Carrier: q.Carrier}}
	return e.put(t)
}

// Snapshot asks for a snapshot of an entity's state in the log. The state is that of the moment
// when the shard carries the request out. In all else it is like Submit.
func (e *Engine) Snapshot(key service.Key, done func(error)) error {
	return e.put(&task{command: service.Command{Service: e.options.Spec.Service, Key: key}, snapshot: done})
}

func (e *Engine) put(t *task) error {
	s := e.shards[shardOf(t.command.Key, len(e.shards))]
	t.shard = s
	if err := t.startTimer(); err != nil {
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
			return nil // the timer fired first, and has answered
		}
	}
	switch {
	case admitted == admissionClosed:
		return e.errorf(service.KindUnavailable, "the service is not taking commands now")
	case !s.health.up():
		err := e.errorf(service.KindUnavailable, "the service's sandbox is starting, and the queue of commands "+
			"that wait for it is full; nothing was written")
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

// Status returns the present state of each shard, and the sum of their counters since New. It may
// be called at any time.
func (e *Engine) Status() ([]service.ShardStatus, service.Counters) {
	var sum service.Counters
	status := make([]service.ShardStatus, len(e.shards))
	for i, s := range e.shards {
		status[i] = s.status()
		s.counters.addTo(&sum)
	}
	return status, sum
}

// Faults returns the number of entities that the module failed over since New, and the latest
// failures. It may be called at any time.
func (e *Engine) Faults() service.EntityFaults {
	var all service.EntityFaults
	for _, s := range e.shards {
		if f := s.faults.status.Load(); f != nil {
			all.Count += f.Count
			all.Quarantined += f.Quarantined
			all.Latest = append(all.Latest, f.Latest[:min(len(f.Latest), listed-len(all.Latest))]...)
		}
	}
	return all
}

// Quarantine returns the entities that the module could not hydrate since New, by key: at most limit of those after a
// key. It may be called at any time.
func (e *Engine) Quarantine(after service.Key, limit int) service.QuarantinePage {
	var p service.QuarantinePage
	for _, s := range e.shards {
		list := s.faults.quarantined.Load()
		if list == nil {
			continue
		}
		p.Count += len(*list)
		for _, f := range *list {
			if f.Key > after {
				p.Entities = append(p.Entities, f)
			}
		}
	}
	slices.SortFunc(p.Entities, func(x, y service.EntityFault) int { return cmp.Compare(x.Key, y.Key) })
	if len(p.Entities) > limit {
		p.Entities = p.Entities[:limit]
		p.After = p.Entities[limit-1].Key
	}
	return p
}

// Release tries to hydrate an entity at once, even if it is quarantined and its next attempt is not due. done gets
// whether it was quarantined, or why it cannot be hydrated. In all else Release is like Submit.
func (e *Engine) Release(key service.Key, done func(service.Released, error)) error {
	t := &task{command: service.Command{Service: e.options.Spec.Service, Key: key}, release: true}
	t.snapshot = func(err error) {
		if err != nil {
			done(service.Released{}, err)
			return
		}
		done(service.Released{Quarantined: t.quarantined}, nil)
	}
	return e.put(t)
}

// shardOf returns the shard that owns a key. The hash is FNV-1a, so the result is the same in
// each run. hash/fnv takes bytes only, so it would copy the key of each command.
func shardOf(key service.Key, shards int) int {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return int((h ^ h>>32) % uint64(shards))
}

// Package host runs Bulkhead in a Go program: sandboxed, event-sourced services. Events are on disk before
// anyone sees them.
//
//	h, err := host.Open(ctx, host.Options{Dir: "data"})
//	_, err = h.Deploy(ctx, service.Deployment{Service: "bank", Module: wasm})
//	reply, err := h.Send(ctx, service.Command{Service: "bank", Key: "alice", Type: "deposit", Data: data})
//	err = h.Close(ctx)
//
// Errors are *service.Error; branch on their kind with [service.KindOf]. A command has exactly one of three
// results: a reply (its events are on disk), an error of KindUnknown (the outcome is not known; send the same
// command id again), or any other error (nothing was written).
//
// [Host.Handler] serves a host within an HTTP server of the program, and [Host.Collector] provides its
// metrics. All methods of Host are safe for concurrent use.
package host

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/catalog"
	"github.com/bulkhead-wasm/bulkhead/host/internal/latency"
	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
	"github.com/bulkhead-wasm/bulkhead/host/internal/logging"
	"github.com/bulkhead-wasm/bulkhead/host/internal/registry"
	"github.com/bulkhead-wasm/bulkhead/host/internal/router"
	"github.com/bulkhead-wasm/bulkhead/host/internal/sandbox"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/storage"
)

// Host is a running host.
type Host struct {
	opt     Options
	lock    *os.File // of the data directory
	budget  *budget.Account
	modules *catalog.Modules // opened with the first core
	// otherLogs accounts for the logs on disk whose services are not deployed.
	otherLogs     *budget.Account
	moduleAccount *budget.Account // of modules
	files         *descriptors
	ownStorage    bool // Options.OpenStorage was given
	runtime       *sandbox.Runtime
	logs          *logging.Budget // limits what is written to the log
	readers       readers
	router        *router.Router // of commands and queries
	latencies     *latency.Table // durations of commands
	queries       *latency.Table // durations of queries

	life  context.Context // ended by Close
	end   context.CancelFunc
	loops lifecycle.Life

	mu   sync.RWMutex // guards all below
	core *core        // nil while the journal is being opened again
	// why is the reason why nothing is accepted; nil while core is whole. If there is a core whose journal
	// has failed, what is on disk can still be read.
	why     error
	changed chan struct{} // closed and replaced when core changes
}

// core is everything that depends on one open journal. When the journal fails, the whole core is replaced.
type core struct {
	journal  *commitlog.Journal
	catalog  *catalog.Catalog
	registry *registry.Registry
}

// Open opens the host in o.Dir and begins to start every service that is deployed there. It does not wait for
// them; see [Host.Started]. Commands to a service that is starting wait. A service that cannot be started is
// failed, see Status, and is tried again; the host runs without it. ctx bounds only the opening.
func Open(ctx context.Context, o Options) (*Host, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	lock, err := takeDir(o.Dir)
	if err != nil {
		return nil, err
	}
	opened := false
	defer func() {
		if !opened {
			_ = lock.Close() // nothing was written to it
		}
	}()
	ownStorage := o.OpenStorage != nil
	account := newBudget(o.Budget) // the root: everything that the host holds is below it
	files, err := newDescriptors(JournalDir(o.Dir), account)
	if err != nil {
		return nil, err
	}
	if o.OpenStorage == nil {
		memory := newJournalMemory(account)
		o.OpenStorage = func() (journal.Storage, error) {
			return storage.Open(JournalDir(o.Dir), storage.Options{Logger: o.Logger, ReserveBytes: o.ReserveBytes,
				IndexCacheBytes: o.IndexCacheBytes, Memory: memory, MaxFiles: files.forJournal()})
		}
	}
	logs := logging.NewBudget(o.Logger.Handler(), logging.BudgetOptions{Rate: o.LogRate, Burst: o.LogBurst})
	defer func() {
		if !opened {
			_ = logs.Close(context.WithoutCancel(ctx)) // it never fails
		}
	}()
	o.Logger = logs.Logger()
	runtime, err := sandbox.NewRuntime(sandbox.Options{CacheDir: filepath.Join(o.Dir, "cache"), Compiler: o.Compiler,
		Logger:      o.Logger,
		SmallModule: int(o.SmallModule), CompileBase: o.CompileBase, CompilePerMiB: o.CompilePerMiB,
		Account: account.Child("modules that are being uploaded", nil)})
	if err != nil {
		files.close()
		return nil, err
	}
	h := &Host{opt: o, lock: lock, budget: account, files: files, ownStorage: ownStorage, runtime: runtime, logs: logs,
		changed: make(chan struct{})}
	h.readers, h.latencies, h.queries = newReaders(&o, account), latency.New(0), latency.New(0)
	h.otherLogs = h.budget.Child("logs of services that are not deployed", nil)
	h.moduleAccount = h.budget.Child("modules", budget.Limits{budget.DiskBytes: o.Budget.ModuleBytes})
	h.router = router.New(h.runs)
	h.life, h.end = context.WithCancel(context.Background())
	c, err := h.openCore(ctx)
	if err != nil {
		h.end()
		files.close()
		return nil, errors.Join(err, runtime.Close(ctx))
	}
	h.core = c
	h.loops.Go(h.watch)
	h.loops.Go(h.collectLoop)
	h.loops.Go(h.descriptorLoop)
	h.measureDisk()
	h.loops.Go(h.diskLoop)
	opened = true
	return h, nil
}

// Logger is Options.Logger with a rate limit for each service. It is for code on top of the host: a line with
// the attribute "service" is charged to that service, and one with "request" but no service to all clients
// together.
func (h *Host) Logger() *slog.Logger { return h.opt.Logger }

// JournalDir is the journal's directory of a host in dir. It is for tools that read it while no host is
// running.
func JournalDir(dir string) string { return filepath.Join(dir, "journal") }

// modulesDir is the directory of the modules of a host in dir.
func modulesDir(dir string) string { return filepath.Join(dir, "modules") }

// openCore opens the journal and begins to start what is deployed.
func (h *Host) openCore(ctx context.Context) (*core, error) {
	opened, err := h.opt.OpenStorage()
	if err != nil {
		return nil, openError(err)
	}
	j, err := commitlog.Open(ctx, opened, h.opt.Journal)
	if err != nil {
		return nil, errors.Join(openError(err), opened.Close())
	}
	if err := j.IndexDamage(); err != nil {
		h.opt.Logger.Warn("the journal's index was damaged; it was set aside and rebuilt from the log", "error", err)
	}
	for _, log := range j.DamagedLogs() {
		h.opt.Logger.Error("a log is damaged; its service is refused; others are not affected", "log", log, "error",
			j.Damage(log))
	}
	if err := j.Damage(catalog.Log); err != nil { // otherwise services would be missing
		own := &service.Error{Op: "open", Kind: service.KindDamaged, Err: err,
			Message: "the host's own log, which knows what is deployed, is damaged (" + journal.DetailOf(err) +
				"); restore a backup, or rebuild the index to accept what there is"}
		return nil, errors.Join(own, j.Close(ctx))
	}
	if h.modules == nil { // after the journal, whose lock keeps other hosts out of the directory
		m, err := catalog.OpenModules(modulesDir(h.opt.Dir),
			catalog.ModuleOptions{Account: h.moduleAccount, Count: h.opt.Budget.Modules, Room: h.moduleRoom,
				Earlier: h.opt.ModuleHistory})
		if err != nil {
			return nil, errors.Join(err, j.Close(ctx))
		}
		h.modules = m
	}
	cat, err := catalog.Open(ctx, h.modules, j)
	if err != nil {
		return nil, errors.Join(err, j.Close(ctx))
	}
	c := &core{journal: j, catalog: cat, registry: registry.New(registry.Options{
		Journal: j, Catalog: cat, Runtime: h.runtime, Logger: h.opt.Logger, Account: h.budget, Ceiling: h.opt.Ceiling,
		Budget:    h.opt.Budget,
		RingBytes: h.opt.RingBytes, Rings: h.readers.rings, Backlog: h.readers.backlog, Shared: h.readers.shared,
		Latencies: h.latencies, QueryLatencies: h.queries, DrainTime: h.opt.DrainTime, OpenTime: h.opt.OpenTime,
		StartPlaces: h.opt.StartPlaces, Retry: lifecycle.Backoff{First: h.opt.StartRetry, Max: h.opt.StartRetryMax},
		RareRetry: h.opt.StartRetryRare, Patience: h.opt.StartWait,
	})}
	c.registry.StartAll()
	return c, nil
}

func openError(err error) error {
	var own *service.Error
	if errors.As(err, &own) { // such as of the budget
		return own
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return &service.Error{Op: "open", Kind: service.KindInvalid, Err: err,
			Message: "the data directory cannot be written; the host needs to"}
	}
	return service.FromJournal{Use: service.JournalOpen, Op: "open",
		Words: map[journal.ErrorKind]string{
			journal.KindLocked:  "another process uses this data directory; stop it or name another directory",
			journal.KindFull:    "the journal cannot be opened as its disk is full; make room",
			journal.KindCorrupt: "the journal cannot be opened as its files are damaged; restore a backup",
		},
		Otherwise: "the journal cannot be opened"}.Make(err)
}

// watch replaces the core when its journal fails. Close waits for it.
func (h *Host) watch() {
	for {
		h.mu.RLock()
		c := h.core
		h.mu.RUnlock()
		select {
		case <-h.life.Done():
			return
		case <-c.journal.Failed():
		}
		if !h.recover(c) {
			return
		}
	}
}

// recover closes a core with a failed journal and opens a new one, and repeats that with growing waits until
// it succeeds. Until then events on disk are read through the failed core; subscribers wait for the next one.
// It returns false if the host is closing.
func (h *Host) recover(failed *core) bool {
	cause := &service.Error{Kind: service.KindUnavailable, RetryAfter: h.opt.RecoveryWait,
		Message: "the journal failed and is being opened again", Err: failed.journal.Err()}
	h.opt.Logger.Error("the journal failed; nothing is accepted until it has been opened again", "error", cause.Err)
	h.setCore(failed, cause)
	// On a full disk the journal could not be opened, so reading from the failed one goes on.
	for failures := 1; ; failures++ {
		full := failed.journal.Space()
		if full == nil {
			break
		}
		wait := h.recoveryWait(maxSpaceWait, failures)
		h.opt.Logger.Error("the journal is not opened again while its disk is full", "error", full, "retry_in", wait)
		h.setCore(failed, openError(full))
		if !lifecycle.Sleep(h.life, wait) {
			return false
		}
	}
	h.setCore(nil, cause)
	h.files.yield() // closing flushes memory to new files; see keepSpare
	// The journal has failed, so nothing here waits for the disk.
	if err := failed.close(context.Background(), cause); err != nil {
		h.opt.Logger.Warn("could not close everything that used the failed journal", "error", err)
	}
	for failures := 1; ; failures++ {
		c, err := h.openCore(h.life)
		if err == nil {
			h.setCore(c, nil)
			h.opt.Logger.Info("the journal is open again")
			return true
		}
		wait := h.recoveryWait(maxRecoveryWait, failures)
		h.opt.Logger.Error("the journal cannot be opened again", "error", err, "retry_in", wait)
		if !lifecycle.Sleep(h.life, wait) {
			return false
		}
	}
}

// Bounds of the waits between two checks of a full disk, and between two attempts to open a failed journal.
const (
	maxSpaceWait    = 5 * time.Second
	maxRecoveryWait = time.Minute
)

func (h *Host) recoveryWait(longest time.Duration, failures int) time.Duration {
	return lifecycle.Backoff{First: h.opt.RecoveryWait, Max: max(longest, h.opt.RecoveryWait)}.Wait(failures, 0)
}

// setCore sets the core, which may be nil, and the reason why nothing is accepted, which may be nil, too.
func (h *Host) setCore(c *core, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.core != c {
		close(h.changed)
		h.changed = make(chan struct{})
	}
	h.core, h.why = c, why
}

// close ends everything in a core: first the services, last the journal.
func (c *core) close(ctx context.Context, cause error) error {
	return errors.Join(c.registry.Close(ctx, cause), c.journal.Close(ctx))
}

// Close ends the host in stages: it refuses new requests, lets commands in flight get their answers, ends
// subscriptions, and finally closes the journal. When ctx ends, commands that have not begun are refused and
// calls of guests are cancelled. Later calls return the result of the first.
func (h *Host) Close(ctx context.Context) error {
	return h.loops.Stop(ctx, func(ctx context.Context, _ bool) error {
		h.end()
		_ = h.loops.Wait(context.WithoutCancel(ctx)) // what they do ends with life
		cause := &service.Error{Kind: service.KindUnavailable, Message: "the host is shutting down"}
		h.mu.RLock()
		c := h.core
		h.mu.RUnlock()
		h.setCore(nil, cause)
		h.files.yield()
		var err error
		if c != nil {
			err = c.close(ctx, cause)
		}
		err = errors.Join(err, h.runtime.Close(ctx))
		h.otherLogs.Close()
		h.files.close()
		h.moduleAccount.Close()
		h.readers.shared.Close()
		return errors.Join(err, h.logs.Close(context.WithoutCancel(ctx)), h.lock.Close())
	})
}

// open returns the core if commands are accepted, or the reason why not.
func (h *Host) open() (*core, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.why != nil {
		return nil, h.why
	}
	return h.core, nil
}

// reading returns the core if there is one to read from, or the reason why not.
func (h *Host) reading() (*core, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.core == nil {
		return nil, h.why
	}
	return h.core, nil
}

func (h *Host) service(name service.Name) (*registry.Service, error) {
	c, err := h.open()
	if err != nil {
		return nil, err
	}
	return c.registry.Get(name)
}

// runs finds where a service runs, for the router.
func (h *Host) runs(name service.Name) (router.Service, error) {
	svc, err := h.service(name)
	if err != nil {
		return nil, err
	}
	return svc, nil
}

func (h *Host) readService(name service.Name) (*core, *registry.Service, error) {
	c, err := h.reading()
	if err != nil {
		return nil, nil, err
	}
	svc, err := c.registry.Get(name)
	return c, svc, err
}

// Started waits until every service that was deployed when the host opened its journal has been started once:
// it either runs, or has failed and will be tried again. It fails with ctx's cause, or as Ready does. Calling
// it is optional, as commands wait for their service.
func (h *Host) Started(ctx context.Context) error {
	c, err := h.open()
	if err != nil {
		return err
	}
	select {
	case <-c.registry.Tried():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// States is the state of each service, as in its [service.Status].
func (h *Host) States() map[service.Name]service.State {
	c, err := h.reading()
	if err != nil {
		return nil
	}
	states := map[service.Name]service.State{}
	for _, svc := range c.registry.All() {
		state := svc.State()
		if c.journal.Damage(journal.LogName(svc.Name())) != nil {
			state = service.StateFailed
		}
		states[svc.Name()] = state
	}
	return states
}

// Ready returns nil if the host accepts commands, or the reason why not: KindFull while the disk is full,
// which does not affect reading, otherwise KindUnavailable. It does not depend on the states of single
// services; see [Host.States].
func (h *Host) Ready() error {
	c, err := h.open()
	if err != nil {
		return err
	}
	if err := c.journal.Err(); err != nil {
		return &service.Error{Kind: service.KindUnavailable, Message: "the journal failed", Err: err}
	}
	if err := c.journal.Space(); err != nil {
		return &service.Error{Kind: service.KindFull, Message: "the disk of the journal is full; make room", Err: err}
	}
	return nil
}

// SendAsync submits a command and never blocks. If it returns an error, the command was refused and done is
// not called. Otherwise done is called exactly once: with the reply after the command's events are on disk
// and published, or with the error that is the command's result. done runs on a goroutine of the host and
// must not block.
//
// The command's slices must never be changed afterwards.
func (h *Host) SendAsync(c service.Command, done func(service.Reply, error)) error {
	return h.router.SendAsync(c, done)
}

// Send sends a command and waits for its outcome. A rejection by the service is an error of kind
// KindRejected, with the service's code and message. Data that does not match the schema of the command is
// refused before the module runs, with KindInvalid and a Pointer to the place. The command's slices must
// never be changed, not even after Send has returned.
//
// If ctx ends before the command has begun, the command is not carried out, and the error says so; it is
// KindUnavailable if the service is still starting. If ctx ends later, the error is KindUnknown, and the
// command may still be carried out: send it again under the same id to learn its result. A guest that is
// still running some milliseconds later is ended, and nothing is written.
func (h *Host) Send(ctx context.Context, c service.Command) (service.Reply, error) {
	return h.router.Send(ctx, c)
}

// Latencies is how long commands took, by service and type, for all clients. There are at most a thousand
// entries; beyond that, and for types that a service does not have, the type is "other". The entries of a
// service are removed when it is deleted.
func (h *Host) Latencies() []service.Latency { return h.latencies.Read() }

// QueryLatencies is how long queries took; in all else it is like Latencies.
func (h *Host) QueryLatencies() []service.Latency { return h.queries.Read() }

// Query reads the state of one entity. The answer depends only on events that are on disk. The query's data
// is checked against its schema, like a command's.
func (h *Host) Query(ctx context.Context, q service.Query) (service.QueryReply, error) {
	return h.router.Query(ctx, q)
}

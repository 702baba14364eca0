package host

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/machine"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Options configure a [Host]. A zero field means its default.
type Options struct {
	// Dir is where the host keeps everything: the journal, modules, compiled code.
	// It is made if it is not there. No default. One process at a time may use it.
	Dir string
	// Logger gets what an operator should see. Default: [slog.Default].
	Logger *slog.Logger
	// LogRate is how many bytes a second may be logged about each service: its own lines and the host's about
	// its failures. What is beyond is dropped, counted in its status, and told in the log. Negative
	// is no bound. Default 64 KiB.
	LogRate int64
	// LogBurst is how many bytes may be logged at once about a service that was silent. Default 256 KiB, least 16 KiB.
	LogBurst int64
	// Limits are those of services that do not set their own, and of modules that
	// are uploaded without a service. Zero fields are [service.DefaultLimits], or the
	// ceiling if that is lower.
	Limits service.Limits
	// Ceiling is what no deployment may exceed, whatever it asks for. Zero fields are the
	// highest values that there are. A service that was deployed under a higher ceiling
	// does not start; see [Host.Status].
	Ceiling service.Ceiling
	// Budget bounds what all services and connections hold together. Zero fields are
	// [service.Budget.WithDefaults].
	Budget service.Budget
	// Settings are those of services that do not set their own.
	Settings service.Settings
	// Compiler is the command, a program and its first arguments, of a process that
	// verifies, rewrites and compiles modules within limits of memory and time, so that a module made to
	// exhaust the compiler exhausts only that. It has to call [CompilerMain] with the
	// arguments that follow; usually it is the own program, [os.Executable], with an
	// argument that leads there. Empty: all that is done in this process, where
	// nothing but time limits them.
	Compiler []string
	// SmallModule is the size, in bytes, up to which a module never waits for a larger
	// one to be compiled. Default 1 MiB.
	SmallModule int64
	// CompileBase and CompilePerMiB bound the processor time of the compiler process for
	// a module: so much for each, and so much more for each MiB of it. The service's limit
	// holds beside them. Not used without Compiler. Default 10 s and 5 s.
	CompileBase, CompilePerMiB time.Duration
	// Journal tunes the journal; see its fields.
	Journal journal.Options
	// ReserveBytes is the room on the journal's disk below which commands are refused,
	// with KindFull, so that no write meets a full disk; reading goes on. Negative
	// is none. Default 1 GiB. Not used with OpenStorage.
	ReserveBytes int64
	// IndexCacheBytes bounds the memory of the journal's index, in bytes: blocks that were read lately, filters, and
	// what is not written yet. It is a part of Budget.JournalMemoryBytes. Less than 8 MiB is taken for 8 MiB.
	// Default 128 MiB. Not used with OpenStorage.
	IndexCacheBytes int64
	// ModuleKeep is how long a module stays that no service refers to, counted from when it
	// was stored last, or referred to last. Its machine code stays as long. Negative: for ever. Default 24 h.
	ModuleKeep time.Duration
	// RingBytes bounds the recent events that are kept in memory for the subscribers of each
	// service, in bytes. Default 16 MiB.
	RingBytes int64
	// RecentEventBytes bounds the size of those of all services together, in bytes. The
	// services with most of them lose the oldest first. Default 64 MiB.
	RecentEventBytes int64
	// MaxWaitingReaders bounds how many wait for their turn to read a log, see
	// [service.Budget.Readers]; more are refused, with KindOverloaded. Default 131,072.
	MaxWaitingReaders int
	// SharedReadBytes bounds the memory for events that were read lately and are behind the
	// rings, in bytes, for all services together: subscribers that come to the same place read it
	// once. Negative is none. Default 32 MiB.
	SharedReadBytes int64
	// DrainTime bounds how long the commands that a module has taken on may run when a
	// deployment replaces it or its service is deleted. Default 10 s.
	DrainTime time.Duration
	// OpenTime bounds how long a deployment has the new module open snapshots of entities
	// whose events are deleted, before anything is touched. Default 10 s.
	OpenTime time.Duration
	// RecoveryWait is the first wait before a failed journal is opened again; it
	// doubles up to a minute. Default 1 s.
	RecoveryWait time.Duration
	// StartPlaces bounds how many services start at a time: so many that are quick to
	// start, and so many that are slow beside them. Default 4.
	StartPlaces int
	// StartRetry is the first wait before a start that failed is tried again, of a
	// service or of a sandbox that it needs later; it doubles up to StartRetryMax.
	// Defaults 250 ms and 1 min.
	StartRetry    time.Duration
	StartRetryMax time.Duration
	// StartRetryRare is the wait between attempts to start a module that is refused, or
	// breaks while it starts, as it most likely does so each time. Default 10 min.
	StartRetryRare time.Duration
	// StartWait bounds how long a command or query without a deadline waits for its
	// service to start. Default 1 min.
	StartWait time.Duration
	// OpenStorage opens the journal's storage. Default: that of package journal/storage in Dir/journal.
	// It is called again when the journal has failed.
	OpenStorage func() (journal.Storage, error)
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o = o.diskDefaults()
	o.Ceiling = o.Ceiling.WithDefaults()
	limits, settings := o.Ceiling.Defaults()
	o.Limits, o.Settings = o.Limits.Over(limits), o.Settings.Over(settings)
	o.Budget = budgetOf(o.Budget, machine.Memory(), machine.Mappings())
	if o.RingBytes == 0 {
		o.RingBytes = 16 << 20
	}
	if o.DrainTime == 0 {
		o.DrainTime = 10 * time.Second
	}
	if o.OpenTime == 0 {
		o.OpenTime = 10 * time.Second
	}
	if o.ModuleKeep == 0 {
		o.ModuleKeep = 24 * time.Hour
	}
	if o.RecoveryWait == 0 {
		o.RecoveryWait = time.Second
	}
	o.StartPlaces = cmp.Or(o.StartPlaces, 4)
	o.StartRetry = cmp.Or(o.StartRetry, 250*time.Millisecond)
	o.StartRetryMax = cmp.Or(o.StartRetryMax, max(o.StartRetry, time.Minute))
	o.StartRetryRare = cmp.Or(o.StartRetryRare, 10*time.Minute)
	o.StartWait = cmp.Or(o.StartWait, time.Minute)
	return o
}

// validate reports everything that is wrong at once.
func (o Options) validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, service.Errorf(service.KindInvalid, "Options.Dir is empty; name the directory of the "+
			"host's data"))
	}
	if err := o.Ceiling.Validate(); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, o.Limits.Validate(), o.Settings.Validate(), o.Budget.Validate(), o.Budget.Fits(o.Limits),
			o.Ceiling.Check(o.Limits, o.Settings))
	}
	for _, f := range []struct {
		name string
		v    int64
	}{
		{"RingBytes", o.RingBytes}, {"RecentEventBytes", o.RecentEventBytes},
		{"Budget.Readers", o.Budget.Readers}, {"MaxWaitingReaders", int64(o.MaxWaitingReaders)},
		{"Budget.Sandboxes", o.Budget.Sandboxes}, {"Budget.SandboxBytes", o.Budget.SandboxBytes},
		{"Budget.JournalMemoryBytes", o.Budget.JournalMemoryBytes},
		{"Budget.DiskBytes", o.Budget.DiskBytes}, {"Budget.ModuleBytes", o.Budget.ModuleBytes},
		{"Budget.Modules", o.Budget.Modules}, {"Budget.Descriptors", o.Budget.Descriptors},
		{"SmallModule", o.SmallModule}, {"CompileBase", int64(o.CompileBase)},
		{"CompilePerMiB", int64(o.CompilePerMiB)},
		{"LogBurst", o.LogBurst}, {"DrainTime", int64(o.DrainTime)}, {"OpenTime", int64(o.OpenTime)},
		{"RecoveryWait", int64(o.RecoveryWait)},
		{"StartPlaces", int64(o.StartPlaces)}, {"StartRetry", int64(o.StartRetry)},
		{"StartRetryMax", int64(o.StartRetryMax)},
		{"StartRetryRare", int64(o.StartRetryRare)}, {"StartWait", int64(o.StartWait)},
	} {
		if f.v < 0 {
			errs = append(errs, service.Errorf(service.KindInvalid, "Options.%s is %d; it may not be negative", f.name,
				f.v))
		}
	}
	if o.StartRetryMax < o.StartRetry {
		errs = append(errs, service.Errorf(service.KindInvalid, "Options.StartRetryMax is %s; it may not be below "+
			"StartRetry, which is %s", o.StartRetryMax, o.StartRetry))
	}
	return errors.Join(errs...)
}

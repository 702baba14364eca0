package host

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/machine"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// Options configure a [Host]. A zero field means its default.
type Options struct {
	// Dir is the directory of everything that the host keeps: the journal, modules, compiled code. It is
	// created if it is missing. Only one process at a time may use it. No default.
	Dir string
	// Logger gets the messages for the operator. Default: [slog.Default].
	Logger *slog.Logger
	// LogRate is how many bytes may be logged about each service per second: its own lines, and the host's
	// lines about its failures. Further lines are dropped; their number is in the service's status and in the
	// log. Negative: no limit. Default 64 KiB.
	LogRate int64
	// LogBurst is how many bytes may be logged at once about a service that was silent. Default 256 KiB,
	// minimum 16 KiB.
	LogBurst int64
	// Limits apply to services that do not set their own, and to modules that are uploaded without a service.
	// Zero fields are [service.DefaultLimits], or the ceiling if that is lower.
	Limits service.Limits
	// Ceiling holds the maximum limits of any deployment. Zero fields are the highest possible values. A
	// service that was deployed under a higher ceiling does not start; see [Host.Status].
	Ceiling service.Ceiling
	// Budget bounds what all services and connections hold together. Zero fields are
	// [service.Budget.WithDefaults].
	Budget service.Budget
	// Settings apply to services that do not set their own.
	Settings service.Settings
	// Compiler is the command line of a process that verifies, rewrites and compiles modules within limits of
	// memory and time. A module that exhausts the compiler then exhausts only that process. The command must
	// call [CompilerMain] with the remaining arguments; usually it is [os.Executable] with an argument for
	// that. Empty: this process does the work, bounded only in time.
	Compiler []string
	// SmallModule is the size, in bytes, up to which a module never waits for a larger one to be compiled.
	// Default 1 MiB.
	SmallModule int64
	// CompileBase and CompilePerMiB bound the processor time of the compiler process: the base for each
	// module, and the other for each MiB of the module. The service's limit applies as well. Not used without
	// Compiler. Defaults: 10 s and 5 s.
	CompileBase, CompilePerMiB time.Duration
	// Journal tunes the journal; see its fields.
	Journal commitlog.Options
	// ReserveBytes is the free space on the journal's disk below which commands are refused with KindFull, so
	// that no write meets a full disk. Reading goes on. Negative: none. Default 1 GiB. Not used with
	// OpenStorage.
	ReserveBytes int64
	// IndexCacheBytes bounds the memory of the journal's index, in bytes: recently read blocks, filters, and
	// unwritten entries. It is a part of Budget.JournalMemoryBytes. Values below 8 MiB mean 8 MiB. Default
	// 128 MiB. Not used with OpenStorage.
	IndexCacheBytes int64
	// ModuleKeep is how long a module without references is kept, counted from when it was last stored or
	// last referred to. Its machine code is kept as long. Negative: forever. Default 24 h.
	ModuleKeep time.Duration
	// ModuleHistory is how many different modules that a service ran before its present one stay stored, so
	// that it can be rolled back to them. A stopped service keeps none of them. Default 10; at least 1.
	ModuleHistory int
	// RingBytes bounds the recent events in memory for the subscribers of each service, in bytes. Default 16
	// MiB.
	RingBytes int64
	// RecentEventBytes bounds the recent events of all services together, in bytes. The services with most of
	// them lose their oldest first. Default 64 MiB.
	RecentEventBytes int64
	// MaxWaitingReaders is how many readers may wait for their turn to read a log, see
	// [service.Budget.Readers]. Further ones are refused with KindOverloaded. Default 131,072.
	MaxWaitingReaders int
	// SharedReadBytes bounds the memory, in bytes, for recently read events that are older than the rings. It
	// is shared by all services: subscribers at the same place read it once. Negative: none. Default 32 MiB.
	SharedReadBytes int64
	// DrainTime is how long accepted commands may still run when a deployment replaces their module or their
	// service is deleted. Default 10 s.
	DrainTime time.Duration
	// Verify says how modules are verified before they take over, where a deployment does not. Zero fields have
	// the defaults of [service.Verify.WithDefaults].
	Verify service.Verify
	// OpenTime is how long the new module of a deployment may take to open snapshots of entities whose events
	// are deleted. This happens before anything is changed. Default 10 s.
	OpenTime time.Duration
	// RecoveryWait is the first wait before a failed journal is opened again; it doubles up to a minute.
	// Default 1 s.
	RecoveryWait time.Duration
	// StartPlaces is how many services that start quickly may start at a time, and also how many that start
	// slowly. Default 4.
	StartPlaces int
	// StartRetry is the first wait after a failed start of a service, or of a sandbox that it needs later; it
	// doubles up to StartRetryMax. Defaults: 250 ms and 1 min.
	StartRetry    time.Duration
	StartRetryMax time.Duration
	// StartRetryRare is the wait between attempts to start a module that is refused, or that breaks while it
	// starts, as that will most likely happen again. Default 10 min.
	StartRetryRare time.Duration
	// StartWait is how long a command or query without a deadline waits for its service to start. Default 1
	// min.
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
	if o.ModuleHistory == 0 {
		o.ModuleHistory = 10
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

// validate reports everything that is wrong.
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

package pebbleindex

import (
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options are the choices of a store. A zero field means its default.
type Options struct {
	// ReadOnly opens the store for reading only. Default: false.
	ReadOnly bool
	// MemoryBytes bounds the memory of the store, in bytes: blocks of data, index and filters, and what is not written
	// yet. Default [DefaultMemory], at least [MinMemory].
	MemoryBytes int64
	// Abandoned is called for each database that cannot be closed, so that the memory of the store stays until the
	// process ends. Default: nobody is told.
	Abandoned func()
	// Group is the length of the beginning of a key that it shares with those it is read together with, or 0
	// if it has no such beginning. It is asked for keys and for prefixes of scans, and must say the same for all
	// of them. It is total. Default: 0.
	Group func(key []byte) int
	// Counted says which keys are counted. Default: none.
	Counted Counted
	// Room says whether a compaction may write so many bytes; an error puts it off. Default: it may.
	Room func(bytes int64) error
	// Logger gets what happens in the background. Default: none.
	Logger *slog.Logger

	// For tests:
	fs       vfs.FS
	memTable uint64 // bytes
	pause    time.Duration
	table    int64 // bytes
	idle     bool  // nothing is compacted unless somebody asks for it
}

// Counted are keys that the store counts, by a number that each has in it, such as a day.
type Counted struct {
	// Of returns the number of a key; ok is false if the key is not counted. It is total.
	Of func(key []byte) (number uint32, ok bool)
	// Prefix is what all counted keys with a number begin with, and no others.
	Prefix func(number uint32) []byte
}

const (
	// DefaultMemory is the default of Options.MemoryBytes.
	DefaultMemory = 128 << 20
	// MinMemory is the least of Options.MemoryBytes.
	MinMemory = 8 << 20
	// MaxFiles bounds the descriptors of a store, whatever its size: for tables that are read, and for what is
	// written meanwhile.
	MaxFiles = 512
)

const (
	// A table in memory has a quarter of the memory, and updates wait when two are full. So half of the memory is for
	// blocks, or a quarter while Pebble keeps a third table to use it again.
	memTableShare = 4
	memTables     = 2
	maxMemTable   = 64 << 20

	tableBytes = 32 << 20

	// l0Tables is how many tables of the newest level a read may have to look into before they are compacted. Fewer
	// make reads cheaper, more make writes cheaper.
	l0Tables = 8

	compactionPause = time.Second // behind one that failed
	blockBytes      = 16 << 10
	filterBits      = 10 // for each group and for each key without one: about one in a hundred look-ups goes astray
	levelFactor     = 10
)

// formatVersion is that of Pebble's files. A later one is chosen by hand: files that have it cannot be read by
// earlier versions of the host.
const formatVersion = pebble.FormatColumnarBlocks

// MemoryOf returns how many bytes of memory a store with these options may take. If it is read while it is cleared, the
// tables in memory of what was cleared can come on top until the readers have left.
func MemoryOf(o Options) int64 { return o.withDefaults().MemoryBytes }

func (o Options) withDefaults() Options {
	if o.MemoryBytes == 0 {
		o.MemoryBytes = DefaultMemory
	}
	o.MemoryBytes = max(o.MemoryBytes, MinMemory)
	if o.Group == nil {
		o.Group = func([]byte) int { return 0 }
	}
	if o.Counted.Of == nil {
		o.Counted.Of = func([]byte) (uint32, bool) { return 0, false }
	}
	if o.Room == nil {
		o.Room = func(int64) error { return nil }
	}
	if o.Abandoned == nil {
		o.Abandoned = func() {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	if o.memTable == 0 {
		o.memTable = uint64(min(o.MemoryBytes/memTableShare, maxMemTable))
	}
	if o.pause == 0 {
		o.pause = compactionPause
	}
	if o.table == 0 {
		o.table = tableBytes
	}
	return o
}

// pebble are Pebble's options for an instance.
func (o *Options) pebble(in *instance) *pebble.Options {
	p := &pebble.Options{
		FS: in.files, Cache: in.cache, ReadOnly: o.ReadOnly, Comparer: newComparer(o.Group),
		Logger: in, EventListener: in.events(), FormatMajorVersion: formatVersion,
		DisableWAL: true, MaxOpenFiles: MaxFiles, BytesPerSync: 1 << 20,
		MemTableSize: o.memTable, MemTableStopWritesThreshold: memTables,
		// One compaction at a time, as the host's processors are for commands. A store that is read while
		// compactions are behind has more to look into, so updates wait at last.
		CompactionConcurrencyRange: func() (int, int) { return 1, 1 },
		L0CompactionThreshold:      l0Tables, L0StopWritesThreshold: 200, LBaseMaxBytes: 16 * o.table,
		BlockPropertyCollectors: []func() pebble.BlockPropertyCollector{
			func() pebble.BlockPropertyCollector { return &collector{of: o.Counted.Of} },
		},
	}
	p.DisableAutomaticCompactions = o.idle
	p.Experimental.LevelMultiplier = levelFactor
	// Keys of one group are no versions of each other, of which all but the first could stand apart.
	inPlace := pebble.SpanPolicy{
		DisableValueSeparationBySuffix: true, ValueStoragePolicy: pebble.ValueStorageLowReadLatency,
	}
	p.Experimental.SpanPolicyFunc = func([]byte) (pebble.SpanPolicy, []byte, error) { return inPlace, nil, nil }
	p.Experimental.ReadSamplingMultiplier = -1 // no compactions because somebody reads
	for i := range p.Levels {
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(filterBits)
		p.Levels[i].BlockSize = blockBytes
		p.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
		p.TargetFileSizes[i] = o.table
	}
	p.EnsureDefaults()
	return p
}

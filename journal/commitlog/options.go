package commitlog

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Options are the choices of a journal. A zero field means its default.
type Options struct {
	// Clock tells the time of batches. Default: the system's clock. Where it goes back the
	// journal stays at the latest time that it has seen.
	Clock func() journal.UnixNano
	// MaxPendingCommits bounds the commits that are handed in and not yet in the
	// index. Append blocks beyond it, except for a log that has less than a 64th of
	// either bound pending itself. Default 65,536.
	MaxPendingCommits int
	// MaxPendingBytes bounds their encoded size, in bytes. Default 64 MiB.
	MaxPendingBytes int64
	// MaxBatchBytes bounds a batch before it is packed, in bytes; a bigger commit is a batch of its own.
	// Default 64 KiB.
	MaxBatchBytes int
	// Codec packs the records of batches that are written from now on. Default CodecS2.
	Codec journal.Codec
	// MaxGroupBytes bounds what one append to the storage writes, in bytes before they are packed; a bigger
	// commit is a group of its own. Default 4 MiB.
	MaxGroupBytes int
	// MaxGroupCommits bounds the commits of one append to the storage. 1 syncs each
	// commit by itself, which only a measurement wants. Default 8,192.
	MaxGroupCommits int
	// AnswerWindow is how long the answer to a command id is found. After that the id may be used again. The log notes
	// the window if the index still has the answer, so that [verify.Run] knows it. Answers are deleted by whole days,
	// no sooner than 24 hours after the end of the day. Default 24 h.
	AnswerWindow time.Duration
	// VersionCache bounds the entities whose version is kept in memory, about 50 bytes
	// each. Default 1,048,576.
	VersionCache int
	// MaxPendingSnapshotBytes bounds the snapshots, if there are several, that are put and not yet in the
	// index, in bytes; more are dropped. Default 32 MiB.
	MaxPendingSnapshotBytes int64
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = func() journal.UnixNano { return journal.UnixNano(time.Now().UnixNano()) }
	}
	o.Clock = steady(o.Clock)
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.MaxPendingCommits, 65536)
	def(&o.MaxBatchBytes, 64<<10)
	def(&o.MaxGroupBytes, 4<<20)
	def(&o.MaxGroupCommits, 8192)
	def(&o.VersionCache, 1<<20)
	if o.Codec == "" {
		o.Codec = journal.CodecS2
	}
	if o.MaxPendingBytes <= 0 {
		o.MaxPendingBytes = 64 << 20
	}
	if o.MaxPendingSnapshotBytes <= 0 {
		o.MaxPendingSnapshotBytes = 32 << 20
	}
	if o.AnswerWindow <= 0 {
		o.AnswerWindow = 24 * time.Hour
	}
	return o
}

// steady is a clock that does not go back. So a commit whose id may be used again, as a
// window is over, does not get a time at which it was not.
func steady(clock func() journal.UnixNano) func() journal.UnixNano {
	var latest atomic.Int64
	latest.Store(math.MinInt64)
	return func() journal.UnixNano {
		now := clock()
		for {
			was := latest.Load()
			if int64(now) <= was {
				return journal.UnixNano(was)
			}
			if latest.CompareAndSwap(was, int64(now)) {
				return now
			}
		}
	}
}

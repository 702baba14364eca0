// Package commitlog runs a journal: it takes commits, writes them to the log of a storage, mints receipts, and answers
// readers.
//
// The index is written after the log, without sync. [Open] completes it from the log, and [Rebuild] builds it from
// scratch. An overlay in memory answers for what is not yet in the index, so every reader sees all that was handed in
// before it asked.
//
// A commit moves through three goroutines, each of which hands whole groups to
// the next over a bounded channel:
//
//	Append ─▶ committer ─▶ completer ─▶ indexer
//	          batches,      receipts,    entity index,
//	          one sync      done         answers
//
// The committer takes everything that gathered while its last sync ran, and waits only while others are about to hand
// something in; there is no timer. The logs take turns, with one batch a turn. After a failed write or sync nothing is
// retried on the same storage: the journal fails permanently, every commit in flight ends with [journal.KindFailed],
// and what is on disk stays readable.
//
// Each of the three is a type that owns its state. They share the overlay, which holds what was handed in and is not
// indexed yet, the queues of commits and of snapshots, and the cache of versions, all under one lock. The days of
// answers and the requests of retentions to the indexer have their own locks. [Journal] is the public type: it hands
// commits in, and reads from storage and overlay.
package commitlog

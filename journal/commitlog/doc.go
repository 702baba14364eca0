// Package commitlog runs a journal: it takes commits, writes them to the log of a storage, mints receipts, and answers
// readers.
//
// The index is written behind the log without sync. [Open] completes it from the log, and [Rebuild] builds it from
// scratch. What is not yet in the index is answered from an overlay in memory, so every reader sees all that was
// handed in before it asked.
//
// A commit moves through three goroutines, each of which hands whole groups to
// the next over a bounded channel:
//
//	Append ─▶ committer ─▶ completer ─▶ indexer
//	          batches,      receipts,    entity index,
//	          one sync      done         answers
//
// The committer takes whatever gathered while its last sync ran, and waits no longer
// than others are about to hand something in; there is no timer. It takes from the
// logs in turn, a batch of each. After a failed write or sync nothing is tried again on the same storage:
// the journal fails for good, every commit in flight ends with [journal.KindFailed], and
// what is on disk stays readable.
//
// Each of the three is a type that owns what it works with. They meet in the overlay, which has what was handed in and
// is not indexed yet, the queue of commits, the queue of snapshots and the cache of versions, all under one lock. The
// days of answers, and what retentions ask of the indexer, have locks of their own. [Journal] is what callers see: it
// hands commits in, and reads storage and overlay together.
package commitlog

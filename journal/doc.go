// Package journal keeps the event log of a host: what a service's commands
// caused, in order, on disk before anybody hears of it.
//
// A [Storage] keeps the bytes, in two stores. The log ([LogStore]) is the truth:
// batches of whole commits, appended atomically and synced. The index
// ([IndexStore]) is everything derived from it: the events of each entity, the
// answers to command ids, how far the index has come. It is written behind the
// log without sync, completed from the log by [Open] and made anew by [Rebuild].
// What is not yet in the index is answered from an overlay in memory, so every
// reader sees all that was handed in before it asked.
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
// the journal fails for good, every commit in flight ends with [KindFailed], and
// what is on disk stays readable.
//
// FORMAT.md draws every byte.
package journal

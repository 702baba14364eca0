// Package lsm keeps a journal's index: a log-structured merge tree (O'Neil et al., "The
// Log-Structured Merge-Tree", 1996) without a log of its own, as the journal's log already has
// all that is in it. What a crash takes out of memory is indexed again.
//
// Updates gather in memory as sorted pieces. When these have [Options.MemoryBytes] they are
// written to a table: a sorted, immutable file. Tables of about the same age are merged, so that
// a read has few of them to look into. One goroutine does all of this. It gives way to others
// after each block, so that whoever waits for a commit does not wait for it.
//
//	Update → pieces in memory → flush → run of tier 0 → merge → run of tier 1 → …
//
// Blocks of tables that keys were looked up in, and those that scans began in, stay in memory, up to
// [Options.CacheBytes]; from then on those that are asked for more than once.
//
// A run is a sequence of tables that do not overlap. The file RUNS lists them; it is replaced as a
// whole, so that what it says is true at any time. FORMAT.md of the journal has the bytes.
package lsm

// Package pebbleindex keeps a journal's index in Pebble, a log-structured merge tree, without a write-ahead log:
// the journal's log already has all that is in the index. What a crash takes out of memory is indexed again.
//
// # Errors
//
// Pebble ends the process when it cannot write its manifest. It must not come to that here, so it never
// sees such an error: the first write that fails ends the store, and from then on nothing reaches the disk.
// Pebble is told that its writes succeed, so that it can be closed. What is on the disk is what a crash at
// the first failed write would have left, and that is what the next Open finds. The caller gets the error of that
// write from whatever it calls next. The one exception are files that a compaction writes, which Pebble may do
// without: it is told of the error and tries again later.
//
// If Pebble finds that its own state is wrong, it calls the logger's Fatalf. That ends the goroutine
// and not the process. Locks may be held for ever then, so the store is given up with its memory and its
// goroutines, and counted, and its files are marked as damaged. Whoever opens the store next sets them aside and
// rebuilds the index in a new directory.
package pebbleindex

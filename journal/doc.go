// Package journal has the words of a host's event log, which keeps what a service's commands caused, in order, on disk
// before anybody hears of it: logs, positions, commits, events, receipts, errors, and the seams behind which a
// [Storage] keeps the bytes. It starts no goroutine and does no I/O.
//
// A storage has two stores. The log ([LogStore]) is the truth: batches of whole commits, appended atomically and
// synced. The index ([IndexStore]) is everything that is derived from it: the events of each entity, the answers to
// command ids, how far the index has come.
//
// Package commitlog runs a journal, and package verify checks what one has written. FORMAT.md draws every byte.
package journal

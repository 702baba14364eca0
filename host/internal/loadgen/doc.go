// Package loadgen puts a bank under load and keeps the books: it opens accounts,
// then deposits and withdraws on accounts chosen by a Zipf law, from many clients
// at once, each of which waits for its answer before it sends again. What it was
// told is what [Books] remembers, so that the journal can be held to it afterwards.
//
// It speaks to the host through [Sender] alone and so measures every way in with
// the same load. It is the only importer of the HDR histogram.
package loadgen

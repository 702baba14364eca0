// Package loadgen puts a bank under load and records the answers. It opens accounts, then deposits
// and withdraws on accounts chosen by a Zipf distribution. Many clients run at once; each waits for
// the answer before it sends again. [Books] records what the clients were told, so that the journal
// can be compared with it afterwards.
//
// It reaches the host only through [Sender], so every way into the host is measured with the same
// load. It is the only importer of the HDR histogram.
package loadgen

package service

import "time"

// LatencyBounds are the upper bounds of the buckets of a [Latency], from a fraction of a disk sync to the
// longest possible call. One more bucket counts everything above the last bound.
var LatencyBounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond,
	16 * time.Millisecond, 32 * time.Millisecond, 64 * time.Millisecond, 128 * time.Millisecond, 256 * time.Millisecond,
	512 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second,
	32 * time.Second,
}

// Latency is how long the commands, or the queries, of one type took: from their arrival at the host until
// their outcome was known. It includes those that were refused or failed.
type Latency struct {
	Service Name
	Type    Type
	Sum     time.Duration
	// Buckets are their counts. A bucket counts durations up to its bound and above the bound before.
	Buckets [len(LatencyBounds) + 1]uint64
}

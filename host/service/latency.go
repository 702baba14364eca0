package service

import "time"

// LatencyBounds are the upper bounds of the buckets of a [Latency], from a fraction of a
// sync of the disk to the longest that a call may take. One more bucket has what took longer.
var LatencyBounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond,
	16 * time.Millisecond, 32 * time.Millisecond, 64 * time.Millisecond, 128 * time.Millisecond, 256 * time.Millisecond,
	512 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second,
	32 * time.Second,
}

// Latency is how long the commands, or the queries, of one type took, from when the host had them until
// their outcome was known, those that were refused or failed included.
type Latency struct {
	Service Name
	Type    Type
	Sum     time.Duration
	// Buckets count them: those that took no longer than the bound of the bucket, and
	// longer than that of the bucket before.
	Buckets [len(LatencyBounds) + 1]uint64
}

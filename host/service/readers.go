package service

import "time"

// Readers describes the readers of a host's logs: pages of events, subscribers that are behind, backups. They
// take turns, so that they do not delay writes.
type Readers struct {
	// AtOnce is how many may read at a time.
	AtOnce int `json:"at_once"`
	// Reading is how many read at present, and Waiting how many wait for their turn.
	Reading int `json:"reading"`
	Waiting int `json:"waiting"`
	// Turns is the number of turns since the start of the host. ReadTime is their total duration, and
	// WaitTime the total time spent waiting for them.
	Turns    uint64        `json:"turns"`
	ReadTime time.Duration `json:"read_ns"`
	WaitTime time.Duration `json:"wait_ns"`
	// SharedBytes is the memory of recently read events, in bytes. They are kept for other readers.
	SharedBytes int64 `json:"shared_bytes"`
}

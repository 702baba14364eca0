package service

import "time"

// Readers is what those do who read the logs of a host: pages of events, subscribers that
// are behind, backups. They take turns, so that they do not keep others from writing.
type Readers struct {
	// AtOnce is how many may read at a time.
	AtOnce int `json:"at_once"`
	// Reading is how many do, and Waiting how many wait for their turn.
	Reading int `json:"reading"`
	Waiting int `json:"waiting"`
	// Turns counts those that have begun, since the start of the host; ReadTime is how long
	// they took, and WaitTime how long was waited for them, each in all.
	Turns    uint64        `json:"turns"`
	ReadTime time.Duration `json:"read_ns"`
	WaitTime time.Duration `json:"wait_ns"`
	// SharedBytes is the memory for events that were read lately, in bytes, in case others
	// want them too.
	SharedBytes int64 `json:"shared_bytes"`
}

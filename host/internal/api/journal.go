package api

import "github.com/bulkhead-wasm/bulkhead/journal"

// Journal is what the journal of a host counted, and its logs.
type Journal struct {
	Stats              journal.Stats `json:"stats"`
	WriteAmplification float64       `json:"write_amplification"` // bytes written for each byte of events; 0 if not known
	Logs               []JournalLog  `json:"logs"`
}

// JournalLog is one log. What has to be counted is there if it was asked for.
type JournalLog struct {
	journal.LogInfo
	Commits *uint64 `json:"commits,omitempty"`
	Events  *uint64 `json:"events,omitempty"`
	Bytes   *uint64 `json:"bytes,omitempty"`
}

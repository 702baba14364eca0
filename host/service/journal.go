package service

import "github.com/bulkhead-wasm/bulkhead/journal"

// JournalStats are the counters of a host's journal, and its logs.
type JournalStats struct {
	Stats              journal.Stats `json:"stats"`
	WriteAmplification float64       `json:"write_amplification"` // bytes written for each byte of events; 0 if unknown
	// Readers are the readers of a running host's logs; nil for a journal without a running host.
	Readers *Readers   `json:"readers,omitempty"`
	Logs    []LogStats `json:"logs"`
}

// LogStats describes one log. Values that must be counted are nil unless they were asked for.
type LogStats struct {
	journal.LogInfo
	Commits *uint64 `json:"commits,omitempty"`
	Events  *uint64 `json:"events,omitempty"`
	Bytes   *uint64 `json:"bytes,omitempty"`
	Types   *int    `json:"types,omitempty"` // of events
}

// MeasuredLog is a log with everything counted.
func MeasuredLog(s journal.LogSize) LogStats {
	return LogStats{LogInfo: s.LogInfo, Commits: &s.Commits, Events: &s.Events, Bytes: &s.Bytes, Types: &s.Types}
}

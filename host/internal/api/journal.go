package api

import (
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Retention says which of a service's first events shall be deleted: those before a
// position, those of a certain age, or, with both, those to which both applies.
type Retention struct {
	Before      service.Position `json:"before,omitempty"`
	OlderThanMS int64            `json:"older_than_ms,omitempty"`
	Through     uint64           `json:"through,omitempty"` // no batch behind the one with this sequence
	DryRun      bool             `json:"dry_run,omitempty"`
	Force       bool             `json:"force,omitempty"`
	// MaxKeptBytes bounds the events of entities without snapshots that are kept apart; 0 is none, nil the default.
	MaxKeptBytes *int64 `json:"max_kept_bytes,omitempty"`
}

// Journal is what the journal of a host counted, and its logs.
type Journal struct {
	Stats              journal.Stats `json:"stats"`
	WriteAmplification float64       `json:"write_amplification"` // bytes written for each byte of events; 0 if not known
	// Readers is what those do who read the logs; nil if nobody can but who asked.
	Readers *service.Readers `json:"readers,omitempty"`
	Logs    []JournalLog     `json:"logs"`
}

// JournalLog is one log. What has to be counted is there if it was asked for.
type JournalLog struct {
	journal.LogInfo
	Commits *uint64 `json:"commits,omitempty"`
	Events  *uint64 `json:"events,omitempty"`
	Bytes   *uint64 `json:"bytes,omitempty"`
	Types   *int    `json:"types,omitempty"` // of events
}

// MeasuredLog is a log that was measured.
func MeasuredLog(s journal.LogSize) JournalLog {
	return JournalLog{LogInfo: s.LogInfo, Commits: &s.Commits, Events: &s.Events, Bytes: &s.Bytes, Types: &s.Types}
}

// EventTypes is the event catalogue of a service: the types of the events that can be read, by name.
type EventTypes struct {
	Types []journal.EventType `json:"types"`
}

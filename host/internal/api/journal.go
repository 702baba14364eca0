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

// EventTypes is the event catalogue of a service: the types of the events that can be read, by name.
type EventTypes struct {
	Types []journal.EventType `json:"types"`
}

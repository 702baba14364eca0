package api

import (
	"math"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Retention is the body of POST /v1/services/{service}/retention: a [service.Retention] on the wire.
type Retention struct {
	Before      service.Position `json:"before,omitempty"`
	OlderThanMS int64            `json:"older_than_ms,omitempty"`
	Through     uint64           `json:"through,omitempty"` // sequence of the last batch that may be deleted
	DryRun      bool             `json:"dry_run,omitempty"`
	Force       bool             `json:"force,omitempty"`
	// MaxKeptBytes is the maximum size of kept events; 0: none, nil: the default.
	MaxKeptBytes *int64 `json:"max_kept_bytes,omitempty"`
}

// RetentionOf converts r for the wire.
func RetentionOf(r service.Retention) Retention {
	out := Retention{Before: r.Before, OlderThanMS: r.OlderThan.Milliseconds(), Through: r.Through, DryRun: r.DryRun,
		Force: r.Force}
	if r.MaxKept != 0 {
		kept := max(r.MaxKept, 0) // below 0 means none, which is 0 here
		out.MaxKeptBytes = &kept
	}
	return out
}

// Value is the retention that r asks for. Its errors are of kind KindInvalid.
func (r *Retention) Value() (service.Retention, error) {
	if r.OlderThanMS < 0 || r.OlderThanMS > math.MaxInt64/int64(time.Millisecond) {
		return service.Retention{}, service.Errorf(service.KindInvalid,
			"older_than_ms is %d; it is an age in milliseconds", r.OlderThanMS)
	}
	if r.Before == 0 && r.OlderThanMS == 0 {
		return service.Retention{}, service.Errorf(service.KindInvalid,
			"the retention needs before or older_than_ms, or would delete all there is")
	}
	out := service.Retention{
		Before: r.Before, OlderThan: time.Duration(r.OlderThanMS) * time.Millisecond,
		Through: r.Through, DryRun: r.DryRun, Force: r.Force,
	}
	switch kept := r.MaxKeptBytes; {
	case kept == nil:
	case *kept < 0:
		return service.Retention{}, service.Errorf(service.KindInvalid,
			"max_kept_bytes is %d; it is a number of bytes, or 0 to keep nothing", *kept)
	case *kept == 0:
		out.MaxKept = -1
	default:
		out.MaxKept = *kept
	}
	return out, nil
}

// EventTypes is the event catalogue of a service: the types of its readable events, by name.
type EventTypes struct {
	Types []journal.EventType `json:"types"`
}

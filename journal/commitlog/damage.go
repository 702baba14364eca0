package commitlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// Damage returns what is wrong with a log as far as Open saw, or nil. A damaged
// log can be read up to the damage and behind it; nothing is appended to it and no
// state in it has a receipt, as acknowledged commits may be missing from it. Other
// logs are not concerned.
func (j *Journal) Damage(log journal.LogName) error {
	if d := j.overlay.damaged[log]; d != nil {
		return d
	}
	return nil
}

// DamagedLogs lists them, by name.
func (j *Journal) DamagedLogs() []journal.LogName { return slices.Sorted(maps.Keys(j.overlay.damaged)) }

// damages collects the damage of logs; the first of each counts.
type damages map[journal.LogName]*journal.Error

// add takes err up if it is damage of the log, and returns it if it is not.
func (d damages) add(log journal.LogName, err error) error {
	var ours *journal.Error
	var index *format.IndexDamage
	if err == nil || errors.As(err, &index) || !errors.As(err, &ours) || ours.Kind != journal.KindCorrupt {
		return err
	}
	if d[log] == nil {
		own := *ours
		own.Log = log
		d[log] = &own
	}
	return nil
}

// checkQuarantined reads every log if files of the storage are quarantined, and notes where something is missing or
// wrong.
func (j *Journal) checkQuarantined(ctx context.Context, logs []journal.LogName) error {
	if j.storage.Quarantined == nil {
		return nil
	}
	files := j.storage.Quarantined()
	if len(files) == 0 {
		return nil
	}
	for _, log := range logs {
		err := j.scanLog(ctx, log, 0,
			func(*format.BatchHeader, journal.Position, *format.DecodedCommit) error { return nil })
		if err := j.overlay.damaged.add(log, err); err != nil {
			return err
		}
		if d := j.overlay.damaged[log]; d != nil && !strings.Contains(d.Detail, files[0]) {
			d.Detail += fmt.Sprintf("; damaged files of the journal: %s", strings.Join(files, ", "))
		}
	}
	return nil
}

// sequel sees to it that the blocks of a scan follow on each other.
type sequel struct {
	log      journal.LogName
	sequence uint64 // of the block before; 0 if there is none
	next     journal.Position
}

// follow returns a KindCorrupt error if b is not the block behind the one before.
func (s *sequel) follow(b journal.Block) error {
	if s.sequence != 0 && (b.Sequence != s.sequence+1 || b.First != s.next) {
		return journal.Errorf(journal.KindCorrupt, "read", s.log, "batch %d at position %d follows on batch %d, "+
			"which ends before "+
			"position %d: a part of the log is missing",
			b.Sequence, b.First, s.sequence, s.next)
	}
	s.sequence, s.next = b.Sequence, b.First
	return nil
}

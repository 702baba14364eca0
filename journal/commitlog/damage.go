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

// Damage returns the damage of a log that Open found, or nil. A damaged log can be read before and after the damage.
// Nothing is appended to it and no state in it has a receipt, as acknowledged commits may be missing from it. Other
// logs are not affected.
func (j *Journal) Damage(log journal.LogName) error {
	if d := j.overlay.damaged[log]; d != nil {
		return d
	}
	return nil
}

// DamagedLogs lists the damaged logs by name.
func (j *Journal) DamagedLogs() []journal.LogName { return slices.Sorted(maps.Keys(j.overlay.damaged)) }

// damages collects the damage of logs; only the first of each log is kept.
type damages map[journal.LogName]*journal.Error

// add records err if it is damage of the log; otherwise it returns err.
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

// checkQuarantined reads every log if files of the storage are quarantined, and records where a log is incomplete or
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

// sequel checks that the blocks of a scan follow each other.
type sequel struct {
	log      journal.LogName
	sequence uint64 // of the previous block; 0 if there is none
	next     journal.Position
}

// follow returns a KindCorrupt error if b does not follow the previous block.
func (s *sequel) follow(b journal.Block) error {
	if s.sequence != 0 && (b.Sequence != s.sequence+1 || b.First != s.next) {
		return journal.Errorf(journal.KindCorrupt, "read", s.log, "batch %d at position %d follows on batch %d, "+
			"which ends before position %d: a part of the log is missing",
			b.Sequence, b.First, s.sequence, s.next)
	}
	s.sequence, s.next = b.Sequence, b.First
	return nil
}

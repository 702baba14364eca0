package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Doubter is an [Engine] that may have found damage in its files when it was
// opened, and goes on without them.
type Doubter interface {
	// Doubts names the files whose content is missing from the log. If there are any,
	// Open reads the whole log to find out what is.
	Doubts() []string
}

// Rememberer is an [Engine] that notes apart from the log how far logs have come, so
// that one is found out which has lost its end.
type Rememberer interface {
	// Heads returns for each log the last block that Append is known to have stored; there may
	// have been later ones.
	Heads() map[LogName]Head
	// ForgetHeads forgets them: what the logs have is all there is.
	ForgetHeads() error
}

// Head is where the last block of a log stands.
type Head struct {
	Sequence uint64
	First    Position
}

// rememberedHeads are those that the engine has noted.
func rememberedHeads(e Engine) map[LogName]Head {
	if r, ok := e.(Rememberer); ok {
		return r.Heads()
	}
	return nil
}

// Damage returns what is wrong with a log as far as Open saw, or nil. A damaged
// log can be read up to the damage and behind it; nothing is appended to it and no
// state in it has a receipt, as acknowledged commits may be missing from it. Other
// logs are not concerned.
func (j *Journal) Damage(log LogName) error {
	if d := j.damaged[log]; d != nil {
		return d
	}
	return nil
}

// DamagedLogs lists them, by name.
func (j *Journal) DamagedLogs() []LogName { return slices.Sorted(maps.Keys(j.damaged)) }

// damages collects the damage of logs; the first of each counts.
type damages map[LogName]*Error

// add takes err up if it is damage of the log, and returns it if it is not.
func (d damages) add(log LogName, err error) error {
	var ours *Error
	var index *indexDamage
	if err == nil || errors.As(err, &index) || !errors.As(err, &ours) || ours.Kind != KindCorrupt {
		return err
	}
	if d[log] == nil {
		own := *ours
		own.Log = log
		d[log] = &own
	}
	return nil
}

// proveDoubtful reads every log if the engine has doubts, and notes where something
// is missing or wrong.
func (j *Journal) proveDoubtful(ctx context.Context, logs []LogName) error {
	doubter, ok := j.engine.(Doubter)
	if !ok {
		return nil
	}
	files := doubter.Doubts()
	if len(files) == 0 {
		return nil
	}
	for _, log := range logs {
		err := j.scanLog(ctx, log, 0, func(*batchHeader, Position, *decodedCommit) error { return nil })
		if err := j.damaged.add(log, err); err != nil {
			return err
		}
		if d := j.damaged[log]; d != nil && !strings.Contains(d.Detail, files[0]) {
			d.Detail += fmt.Sprintf("; damaged files of the journal: %s", strings.Join(files, ", "))
		}
	}
	return nil
}

// sequel sees to it that the blocks of a scan follow on each other.
type sequel struct {
	log      LogName
	sequence uint64 // of the block before; 0 if there is none
	next     Position
}

// follow returns a KindCorrupt error if b is not the block behind the one before.
func (s *sequel) follow(b Block) error {
	if s.sequence != 0 && (b.Sequence != s.sequence+1 || b.First != s.next) {
		return errorf(KindCorrupt, "read", s.log, "batch %d at position %d follows on batch %d, which ends before "+
			"position %d: a part of the log is missing",
			b.Sequence, b.First, s.sequence, s.next)
	}
	s.sequence, s.next = b.Sequence, b.First
	return nil
}

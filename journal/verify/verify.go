// Package verify checks that what a storage holds is what a journal has written: the log, by its hashes and by the
// rules that each commit follows, and the index, against the log. It needs no journal that runs.
package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// Options are the choices of Run.
type Options struct {
	// Progress, if not nil, is told now and then how far verification has come.
	Progress func(Progress)
	// MaxProblems bounds the problems that are listed. Default 100.
	MaxProblems int
	// AnswerWindow was the journal's when commits were written that do not say themselves that
	// their id had been used before, as those of the first versions: it may be used again after it. Default 24 h.
	AnswerWindow time.Duration
}

// Progress says how far verification has come.
type Progress struct {
	Log     journal.LogName
	Batches uint64 // of all logs so far
	Events  uint64 // likewise
	Total   uint64 // batches that there are in all logs
}

// Problem is something that verification found wrong.
type Problem struct {
	Log      journal.LogName  `json:"log"`
	Sequence uint64           `json:"batch,omitempty"`
	Position journal.Position `json:"position,omitempty"`
	Detail   string           `json:"detail"`
}

// String is the problem in one line.
func (p Problem) String() string {
	return fmt.Sprintf("%s, batch %d at position %d: %s", p.Log, p.Sequence, p.Position, p.Detail)
}

// LogReport is what verification counted in one log.
type LogReport struct {
	Head     journal.Position `json:"position"`
	Batches  uint64           `json:"batches"`
	Commits  uint64           `json:"commits"`
	Events   uint64           `json:"events"`
	Entities int              `json:"entities"`
	Bytes    uint64           `json:"bytes"`
	// Deleted counts the batches at the beginning that a retention has deleted.
	Deleted uint64 `json:"deleted"`
	// Unindexed counts the batches at the end that the index does not cover yet, as after a
	// crash. That is no problem: opening the journal completes it.
	Unindexed uint64 `json:"unindexed"`
	// Snapshots counts those in the index that are whole.
	Snapshots uint64 `json:"snapshots"`
}

// Report is the result of Run.
type Report struct {
	Logs     map[journal.LogName]LogReport `json:"logs"`
	Problems []Problem                     `json:"problems"` // at most MaxProblems of them
	Found    int                           `json:"found"`    // how many there are
}

// Run proves the whole journal: every batch's checksum, the chain of hashes,
// positions dense in a log, versions dense in an entity, command ids not used again
// before their window was over, times that never decrease, the index equal to the log, and no snapshot
// damaged or ahead of it. No journal may be open on the storage. It keeps the entities
// of one log in memory.
//
// What is wrong with the data is in the report; an error means that verification
// could not go on.
func Run(ctx context.Context, storage journal.Storage, o Options) (Report, error) {
	if o.MaxProblems <= 0 {
		o.MaxProblems = 100
	}
	if o.AnswerWindow <= 0 {
		o.AnswerWindow = 24 * time.Hour
	}
	v := &verifier{ctx: ctx, storage: storage, opt: o, heads: storage.KnownHeads(),
		report: Report{Logs: map[journal.LogName]LogReport{}, Problems: []Problem{}}}
	logs, err := storage.Log.Logs(ctx)
	if err != nil {
		return v.report, stored.ReadError("verify", "", err)
	}
	for _, log := range logs {
		last, _, err := storage.Log.Last(ctx, log)
		if err != nil {
			return v.report, stored.ReadError("verify", log, err)
		}
		v.progress.Total += last.Sequence
	}
	for _, log := range logs {
		if err := v.verifyLog(log); err != nil {
			return v.report, stored.ReadError("verify", log, err)
		}
	}
	return v.report, stored.ReadError("verify", "", v.lostLogs(logs))
}

// lostLogs looks for logs that only the index or the storage knows.
func (v *verifier) lostLogs(logs []journal.LogName) error {
	lost := map[journal.LogName]uint64{}
	for log, head := range v.heads {
		lost[log] = head.Sequence
	}
	prefix := []byte{'c'}
	err := v.storage.Index.Scan(v.ctx, prefix, prefix, func(key, value []byte) error {
		if log := format.CheckpointLog(key); log != "" {
			at, _ := format.DecodeCheckpoint(value)
			lost[log] = max(lost[log], at.Sequence)
		}
		return nil
	})
	for _, log := range slices.Sorted(maps.Keys(lost)) {
		if !slices.Contains(logs, log) {
			v.problem(log, 0, 0, "there was a batch %d of this log, which is not there at all", lost[log])
		}
	}
	return err
}

type verifier struct {
	ctx      context.Context
	storage  journal.Storage
	opt      Options
	report   Report
	progress Progress
	heads    map[journal.LogName]journal.Head // as the storage remembers them
}

// logVerifier is the state of one log's verification.
type logVerifier struct {
	*verifier
	log      journal.LogName
	counts   LogReport
	next     journal.Position
	chain    format.ChainHash
	time     journal.UnixNano
	versions map[string]verified
	indexed  format.Checkpoint // how far the index says it has come: beyond, it may lack entries
	covered  uint64            // events up to there
	bases    verifiedBases
	types    verifiedTypes
	days     []format.PromisedDay                   // of which the index has answers, the latest first
	floor    format.Day                             // the first of which it must have all
	uses     map[journal.CommandID]journal.UnixNano // of ids that are used again after what was examined, or may be
	damages  int                                    // batches that were unreadable or missing so far
	adrift   bool                                   // the last one was: the next cannot be held against it
}

// verified is the version that an entity's last readable commit left it at.
type verified struct {
	version journal.Version
	damages int // of the log then: what came after more of them may follow on anything
}

func (v *verifier) problem(log journal.LogName, sequence uint64, at journal.Position, format string, args ...any) {
	v.report.Found++
	if len(v.report.Problems) < v.opt.MaxProblems {
		v.report.Problems = append(v.report.Problems, Problem{log, sequence, at, fmt.Sprintf(format, args...)})
	}
}

func (v *verifier) verifyLog(log journal.LogName) error {
	l := &logVerifier{verifier: v, log: log, next: 1, versions: map[string]verified{},
		uses: map[journal.CommandID]journal.UnixNano{}}
	if err := l.findDays(); err != nil {
		return err
	}
	v.progress.Log = log
	if err := l.checkpoint(); err != nil {
		return err
	}
	if err := l.retained(); err != nil {
		return err
	}
	if err := l.catalogue(); err != nil {
		return err
	}
	if err := v.storage.Log.Blocks(v.ctx, log, 0, l.block); err != nil {
		return err
	}
	if err := l.index(); err != nil {
		return err
	}
	if err := l.checkBases(); err != nil {
		return err
	}
	l.checkTypes()
	if err := l.snapshots(); err != nil {
		return err
	}
	l.counts.Head, l.counts.Entities = l.next-1, l.entities()
	l.counts.Batches -= min(l.counts.Batches, l.counts.Deleted)
	v.report.Logs[log] = l.counts
	v.tell()
	return nil
}

func (v *verifier) tell() {
	if v.opt.Progress != nil {
		v.opt.Progress(v.progress)
	}
}

func (l *logVerifier) block(b journal.Block) error {
	l.counts.Batches++
	l.counts.Bytes += uint64(len(b.Data))
	l.progress.Batches++
	if l.progress.Batches%256 == 0 {
		l.tell()
	}
	bad := func(format string, args ...any) { l.problem(l.log, b.Sequence, b.First, format, args...) }
	h, _, reason := format.DecodeBatch(b.Data)
	if l.counts.Batches == 1 && b.Sequence > 1 && b.Sequence <= l.bases.cut.Sequence {
		// The first of what a retention has left.
		l.counts.Deleted, l.counts.Batches = b.Sequence-1, b.Sequence
		l.next, l.chain = b.First, h.Previous
	}
	if b.Sequence != l.counts.Batches {
		bad("the log's batch number %d has this sequence", l.counts.Batches)
		l.counts.Batches = b.Sequence
		l.damage()
	}
	if b.First != l.next && !l.adrift {
		bad("it starts at position %d, the batch before ends at %d", b.First, l.next-1)
	}
	l.next = b.First
	if reason == "" && h.Log == b.Log && h.First == b.First && h.Sequence == b.Sequence {
		if h.Previous != l.chain && !l.adrift {
			bad("its hash of the batch before is not that batch's")
		}
		if h.Time < l.time {
			bad("its time is before that of the batch before")
		}
		l.time = max(l.time, h.Time)
		l.adrift = false
	}
	err := format.EachRecord(b, func(h *format.BatchHeader, ordinal int, at journal.Position,
		c *format.DecodedCommit) error {
		return l.commit(b, h, ordinal, at, c)
	}, l.base(b))
	l.chain = format.HashOf(b.Data)
	var damage *journal.Error
	if errors.As(err, &damage) && damage.Kind == journal.KindCorrupt {
		bad("%s", damage.Detail)
		l.damage()
		return nil
	}
	return err
}

func (l *logVerifier) damage() {
	l.damages++
	l.adrift = true
}

func (l *logVerifier) commit(
	b journal.Block, h *format.BatchHeader, ordinal int, at journal.Position, c *format.DecodedCommit,
) error {
	bad := func(format string, args ...any) { l.problem(l.log, b.Sequence, at, format, args...) }
	l.counts.Commits++
	l.counts.Events += uint64(len(c.Events))
	l.progress.Events += uint64(len(c.Events))
	key := c.Command.Key
	if b.Sequence < l.bases.cut.Sequence {
		// About to be removed, with what the index has of it, which may have happened.
		l.next = at + journal.Position(len(c.Events))
		l.versions[key] = verified{c.Expected + journal.Version(len(c.Events)), l.damages}
		return nil
	}
	if b.Sequence <= l.indexed.Sequence {
		l.covered += uint64(len(c.Events))
	}
	l.countTypes(b, at, c)
	l.next = at + journal.Position(len(c.Events))
	if was := l.versionOf(key); was.version != c.Expected && was.damages == l.damages {
		bad("command %q finds entity %q at version %d, its last commit left it at %d", c.Command.ID, key, c.Expected,
			was.version)
	}
	l.versions[key] = verified{c.Expected + journal.Version(len(c.Events)), l.damages}
	if err := l.answered(b, h, ordinal, at, c); err != nil {
		return err
	}
	return l.events(b, h, at, c)
}

// answered holds the index's answer to a command id against the commit, and its use
// against the one before. The index keeps the last use of an id, so it says at the
// others that there will be one.
func (l *logVerifier) answered(
	b journal.Block, h *format.BatchHeader, ordinal int, at journal.Position, c *format.DecodedCommit,
) error {
	id := c.Command.ID
	today := format.DayOf(h.Time)
	value, ok, err := l.storage.Index.Get(l.ctx, format.AnswerKey(l.log, id, today))
	if err != nil {
		return err
	}
	bad := func(format string, args ...any) { l.problem(l.log, b.Sequence, at, format, args...) }
	there, good := format.DecodePlace(value)
	here := format.Place{First: h.First, Sequence: h.Sequence, Ordinal: uint64(ordinal), Time: h.Time}
	tail := b.Sequence > l.indexed.Sequence
	later := good && (there.Sequence > here.Sequence || there.Sequence == here.Sequence && there.Ordinal > here.Ordinal)
	before, used := l.uses[id]
	switch {
	case !ok && !tail && today >= l.floor:
		bad("the index lacks the answer to command id %q; rebuild the index", id)
	case ok && !good:
		bad("the index's answer to command id %q is damaged; rebuild the index", id)
	case ok && !later && there != here && !tail:
		bad("the index has another place for command id %q; rebuild the index", id)
	case ok && !later && there != here && !used:
		before, used = there.Time, there.Sequence >= l.bases.cut.Sequence // the last use that is indexed
	}
	window, says := l.opt.AnswerWindow, "its answer was promised for %s, if the journal had this window"
	if c.Again > 0 {
		window, says = c.Again, "its answer was promised for %s, as the commit says"
	}
	if !used {
		if before, used, err = l.usedBefore(id, here, window); err != nil {
			return err
		}
	}
	if used {
		if here.Time-before <= journal.UnixNano(window) {
			bad("command id %q is used again after %s; "+says, id, time.Duration(here.Time-before), window)
		}
	}
	if delete(l.uses, id); later || tail {
		l.uses[id] = here.Time
	}
	return nil
}

// findDays finds of which days the index has answers.
func (l *logVerifier) findDays() (err error) {
	var damage *format.IndexDamage
	if l.days, err = stored.AnswerDays(l.ctx, l.storage.Index); err == nil {
		l.floor = format.FloorDay(l.days)
	}
	if errors.As(err, &damage) {
		l.problem(l.log, 0, 0, "%v; rebuild the index", err)
		return nil
	}
	return err
}

// usedBefore finds the latest use of a command id on a day before a commit's, as far back as its window. Of older days
// the index may have no answers left.
func (l *logVerifier) usedBefore(
	id journal.CommandID, here format.Place, window time.Duration,
) (at journal.UnixNano, used bool, err error) {
	from := format.DayOf(here.Time - journal.UnixNano(window))
	for _, d := range l.days {
		if d.Day >= format.DayOf(here.Time) || d.Day < max(from, l.floor) {
			continue
		}
		value, ok, err := l.storage.Index.Get(l.ctx, format.AnswerKey(l.log, id, d.Day))
		if err != nil {
			return 0, false, err
		}
		if there, good := format.DecodePlace(value); ok && good {
			return there.Time, there.Sequence >= l.bases.cut.Sequence, nil
		}
	}
	return 0, false, nil
}

// events compares what the index has of a commit's events.
func (l *logVerifier) events(
	b journal.Block, h *format.BatchHeader, at journal.Position, c *format.DecodedCommit,
) error {
	prefix := format.EntityPrefix(l.log, c.Command.Key)
	for i := range c.Events {
		e := c.Event(h, at, i)
		got, ok, err := l.storage.Index.Get(l.ctx, format.EntityKey(prefix, e.Version))
		if err != nil {
			return err
		}
		if !ok && b.Sequence > l.indexed.Sequence {
			continue
		}
		if want := format.EncodeIndexEvent(&e); !ok || string(got) != string(want) {
			l.problem(l.log, b.Sequence, e.Position, "the index %s version %d of entity %q; rebuild the index",
				hasOther(ok), e.Version, e.Key)
		}
	}
	return nil
}

func hasOther(there bool) string {
	if there {
		return "has something else for"
	}
	return "lacks"
}

// checkpoint reads how far the index says it has come. A damaged checkpoint covers
// nothing, as it does for Open.
func (l *logVerifier) checkpoint() error {
	value, ok, err := l.storage.Index.Get(l.ctx, format.CheckpointKey(l.log))
	if err != nil || !ok {
		return err
	}
	if l.indexed, ok = format.DecodeCheckpoint(value); !ok {
		l.problem(l.log, 0, 0, "the index's checkpoint is damaged; rebuild the index")
	}
	return nil
}

// index looks for entries that the log does not cover, and holds the checkpoint to the log.
func (l *logVerifier) index() error {
	var entries uint64
	prefix := format.IndexPrefix('e', l.log)
	err := l.storage.Index.Scan(l.ctx, prefix, prefix, func([]byte, []byte) error {
		entries++
		return nil
	})
	if err != nil {
		return err
	}
	if (entries < l.covered || entries > l.counts.Events) && l.damages == 0 {
		l.problem(l.log, 0, 0, "the index has %d events, the log %d, of which %d are indexed; rebuild the index",
			entries, l.counts.Events, l.covered)
	}
	if known := max(l.indexed.Sequence, l.heads[l.log].Sequence); known > l.counts.Batches {
		l.problem(l.log, 0, 0, "there was a batch %d, the log ends with %d: it lost its end, or an older copy is in "+
			"its place", known, l.counts.Batches)
	}
	l.counts.Unindexed = l.counts.Batches - min(l.indexed.Sequence, l.counts.Batches)
	return nil
}

package journal

import (
	"context"
	"errors"
	"fmt"
)

// VerifyOptions are the choices of Verify.
type VerifyOptions struct {
	// Progress, if not nil, is told now and then how far verification has come.
	Progress func(VerifyProgress)
	// MaxProblems bounds the problems that are listed. Default 100.
	MaxProblems int
}

// VerifyProgress says how far verification has come.
type VerifyProgress struct {
	Log     LogName
	Batches uint64 // of all logs so far
	Events  uint64
}

// Problem is something that verification found wrong.
type Problem struct {
	Log      LogName  `json:"log"`
	Sequence uint64   `json:"batch,omitempty"`
	Position Position `json:"position,omitempty"`
	Detail   string   `json:"detail"`
}

// String is the problem in one line.
func (p Problem) String() string {
	return fmt.Sprintf("%s, batch %d at position %d: %s", p.Log, p.Sequence, p.Position, p.Detail)
}

// LogReport is what verification counted in one log.
type LogReport struct {
	Head     Position `json:"position"`
	Batches  uint64   `json:"batches"`
	Commits  uint64   `json:"commits"`
	Events   uint64   `json:"events"`
	Entities int      `json:"entities"`
	Bytes    uint64   `json:"bytes"`
}

// Report is the result of Verify.
type Report struct {
	Logs     map[LogName]LogReport `json:"logs"`
	Problems []Problem             `json:"problems"` // at most MaxProblems of them
	Found    int                   `json:"found"`    // how many there are
}

// Verify proves the whole journal: every batch's checksum, the chain of hashes,
// positions dense in a log, versions dense in an entity, command ids used once,
// times that never decrease, and the index equal to the log. No journal may be open
// on the engine. It keeps the entities and command ids of one log in memory.
//
// What is wrong with the data is in the report; an error means that verification
// could not go on.
func Verify(ctx context.Context, e Engine, o VerifyOptions) (Report, error) {
	if o.MaxProblems <= 0 {
		o.MaxProblems = 100
	}
	v := &verifier{ctx: ctx, engine: e, opt: o, report: Report{Logs: map[LogName]LogReport{}, Problems: []Problem{}}}
	logs, err := e.Log().Logs(ctx)
	if err != nil {
		return v.report, readError("verify", "", err)
	}
	for _, log := range logs {
		if err := v.verifyLog(log); err != nil {
			return v.report, readError("verify", log, err)
		}
	}
	return v.report, nil
}

type verifier struct {
	ctx      context.Context
	engine   Engine
	opt      VerifyOptions
	report   Report
	progress VerifyProgress
}

// logVerifier is the state of one log's verification.
type logVerifier struct {
	*verifier
	log      LogName
	counts   LogReport
	next     Position
	chain    chainHash
	time     UnixNano
	versions map[string]Version
	ids      map[CommandID]Position
	broken   bool // a batch was unreadable: what follows cannot be held against it
}

func (v *verifier) problem(log LogName, sequence uint64, at Position, format string, args ...any) {
	v.report.Found++
	if len(v.report.Problems) < v.opt.MaxProblems {
		v.report.Problems = append(v.report.Problems, Problem{log, sequence, at, fmt.Sprintf(format, args...)})
	}
}

func (v *verifier) verifyLog(log LogName) error {
	l := &logVerifier{verifier: v, log: log, next: 1, versions: map[string]Version{}, ids: map[CommandID]Position{}}
	v.progress.Log = log
	err := v.engine.Log().Blocks(v.ctx, log, 0, l.block)
	if err != nil {
		return err
	}
	if err := l.index(); err != nil {
		return err
	}
	l.counts.Head, l.counts.Entities = l.next-1, len(l.versions)
	v.report.Logs[log] = l.counts
	v.tell()
	return nil
}

func (v *verifier) tell() {
	if v.opt.Progress != nil {
		v.opt.Progress(v.progress)
	}
}

func (l *logVerifier) block(b Block) error {
	l.counts.Batches++
	l.counts.Bytes += uint64(len(b.Data))
	l.progress.Batches++
	if l.progress.Batches%256 == 0 {
		l.tell()
	}
	bad := func(format string, args ...any) { l.problem(l.log, b.Sequence, b.First, format, args...) }
	if b.Sequence != l.counts.Batches {
		bad("the log's batch number %d has this sequence", l.counts.Batches)
		l.counts.Batches = b.Sequence
		l.broken = true
	}
	if b.First != l.next && !l.broken {
		bad("it starts at position %d, the batch before ends at %d", b.First, l.next-1)
	}
	l.next = b.First
	first := true
	err := eachCommit(b, func(h *batchHeader, _ int, at Position, c *decodedCommit) error {
		if first {
			first = false
			if h.previous != l.chain && !l.broken {
				bad("its hash of the batch before is not that batch's")
			}
			if h.time < l.time {
				bad("its time is before that of the batch before")
			}
			l.time = h.time
			// From here on all is known again but the versions of the entities.
		}
		return l.commit(b, h, at, c)
	})
	l.chain = hashOf(b.Data)
	var damage *Error
	if errors.As(err, &damage) && damage.Kind == KindCorrupt {
		bad("%s", damage.Detail)
		l.broken = true
		return nil
	}
	return err
}

func (l *logVerifier) commit(b Block, h *batchHeader, at Position, c *decodedCommit) error {
	bad := func(format string, args ...any) { l.problem(l.log, b.Sequence, at, format, args...) }
	l.counts.Commits++
	l.counts.Events += uint64(len(c.events))
	l.progress.Events += uint64(len(c.events))
	l.next = at + Position(len(c.events))
	key := c.command.Key
	if l.versions[key] != c.expected && !l.broken {
		bad("command %q finds entity %q at version %d, its last commit left it at %d", c.command.ID, key, c.expected, l.versions[key])
	}
	l.versions[key] = c.expected + Version(len(c.events))
	if other, used := l.ids[c.command.ID]; used {
		bad("command id %q was used at position %d already", c.command.ID, other)
	}
	l.ids[c.command.ID] = at
	return l.indexed(b, h, at, c)
}

// indexed compares what the index has of a commit.
func (l *logVerifier) indexed(b Block, h *batchHeader, at Position, c *decodedCommit) error {
	prefix := entityPrefix(l.log, c.command.Key)
	for i := range c.events {
		e := c.event(h, at, i)
		got, ok, err := l.engine.Index().Get(l.ctx, entityKey(prefix, e.Version))
		if err != nil {
			return err
		}
		if want := encodeIndexEvent(&e); !ok || string(got) != string(want) {
			l.problem(l.log, b.Sequence, e.Position, "the index %s version %d of entity %q; rebuild the index", hasOther(ok), e.Version, e.Key)
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

// index looks for entries that the log does not cover, and checks the checkpoint.
func (l *logVerifier) index() error {
	var entries uint64
	prefix := indexPrefix('e', l.log)
	err := l.engine.Index().Scan(l.ctx, prefix, prefix, func([]byte, []byte) error {
		entries++
		return nil
	})
	if err != nil {
		return err
	}
	if entries != l.counts.Events && !l.broken {
		l.problem(l.log, 0, 0, "the index has %d events, the log %d; rebuild the index", entries, l.counts.Events)
	}
	value, ok, err := l.engine.Index().Get(l.ctx, checkpointKey(l.log))
	if err != nil {
		return err
	}
	if at, good := decodeCheckpoint(value); !ok || !good || at.sequence != l.counts.Batches {
		l.problem(l.log, 0, 0, "the index has come to batch %d, the log to %d; open the journal once to complete it", at.sequence, l.counts.Batches)
	}
	return nil
}

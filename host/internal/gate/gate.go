// Package gate verifies a module against the log of its service before the module takes over. It replays
// entities, compares the states that the new and the running module make of the same events, and runs
// recorded commands again. All this happens in scratch sandboxes: nothing is written and nothing is sent.
package gate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/scratch"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
)

// Log is the part of [commitlog.Journal] that is read.
type Log interface {
	scratch.Log
	Head(log journal.LogName) journal.Position
	First(log journal.LogName) journal.Position
	EventTypes(ctx context.Context, log journal.LogName) ([]journal.EventType, error)
	Read(ctx context.Context, log journal.LogName, after journal.Position, limit int,
		yield func(*journal.Event) error) error
	Commits(ctx context.Context, log journal.LogName, after journal.Position,
		yield func(*journal.Committed) error) error
	Keys(ctx context.Context, log journal.LogName, after string, yield func(key string) error) error
	AllTrimmed(ctx context.Context, log journal.LogName, after string, yield func(journal.Trimmed) error) error
	Kept(ctx context.Context, log journal.LogName, yield func(*journal.Event) error) error
}

var _ Log = (*commitlog.Journal)(nil)

// The stages of a verification, for reports of progress.
const (
	StageReplaying   = "replaying"    // in entities
	StageReexecuting = "re-executing" // in commands
)

// Options say what to verify. All fields are required, except where they say otherwise.
type Options struct {
	Service service.Name
	Log     Log
	Verify  service.Verify // with defaults, and another mode than VerifyNone
	// New is a sandbox of the new module. The caller closes it.
	New *scratch.Scratch
	// Old is a sandbox of the running module, which the caller closes; nil if none runs.
	Old *scratch.Scratch
	// SameModule says that the running module is the new one, under other limits or settings. Then there is
	// nothing to compare.
	SameModule bool
	// Fits checks data against the new module's schema of a command type; KindInvalid and KindTooLarge say that the
	// module does not take it. Other errors end the verification.
	Fits func(ctx context.Context, typ uint16, data []byte) error
	// Pace waits for a turn to read the log, and is called before each piece of work. It fails when ctx ends.
	Pace func(ctx context.Context) error
	// Progress is told how far a stage has come. total is 0 if it is not known.
	Progress func(stage string, done, total int64)
}

// Run verifies a module. A refusal is a *service.Error of KindConflicting; its reasons name what was found.
// KindOverloaded means that the time did not suffice for what must be replayed. The report is not nil if the
// verification has come to its end, also if it refuses.
func Run(ctx context.Context, o Options) (*service.Verification, error) {
	g := &gate{Options: o, began: time.Now(), report: &service.Verification{Mode: o.Verify.Mode}}
	within, cancel := context.WithTimeoutCause(ctx, o.Verify.Timeout, errTimeout)
	defer cancel()
	err := g.run(within)
	g.report.Took = time.Since(g.began)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(within), errTimeout) {
		return g.report, g.unfinished()
	}
	return g.report, err
}

// errTimeout ends a verification.
var errTimeout = errors.New("the time for the verification is over")

// gate is one run.
type gate struct {
	Options
	began  time.Time
	report *service.Verification
	types  []journal.EventType
	needed bool // the entities that must be replayed were
	seen   map[string]bool
}

func (g *gate) log() journal.LogName { return journal.LogName(g.Service) }

func (g *gate) run(ctx context.Context) error {
	var err error
	if g.types, err = g.Log.EventTypes(ctx, g.log()); err != nil {
		return g.unread(err)
	}
	g.report.OfTypes = len(g.types)
	if err := g.replay(ctx); err != nil {
		return err
	}
	g.needed = true
	if !g.SameModule {
		if err := g.rerun(ctx); err != nil {
			return err
		}
	}
	return g.same()
}

// unfinished is the error of a verification whose time was over. What was found by then is no reason to
// refuse, unless an entity was not replayed that must be.
func (g *gate) unfinished() error {
	if g.needed {
		g.report.Unfinished = true
		return g.same()
	}
	return &service.Error{Op: "deploy", Service: g.Service, Kind: service.KindOverloaded, RetryAfter: time.Second,
		Message: fmt.Sprintf("the module was not verified: %d entities were replayed in %s, and more are needed; "+
			"nothing has changed; give the verification more time, or deploy when the host has less to do",
			g.report.Entities, g.Verify.Timeout)}
}

// same refuses a module that decides or encodes otherwise, if that is asked for.
func (g *gate) same() error {
	r := g.report
	if !g.Verify.RequireSame || r.Same() {
		return nil
	}
	e := g.refusal("the module does not do the same as before, which was required")
	if w := r.Warning(); w != "" {
		e.Reasons = append(e.Reasons, w)
	}
	for _, d := range r.States.First {
		e.Reasons = append(e.Reasons, fmt.Sprintf("entity %q at version %d: the running module makes the state %s, "+
			"the new one %s", d.Key, d.Version, d.Before, d.After))
	}
	if n := r.Commands.Different; n > 0 {
		e.Reasons = append(e.Reasons, fmt.Sprintf("of %d recorded commands, %d are decided otherwise",
			n+r.Commands.Same, n))
	}
	for _, d := range r.Commands.First {
		e.Reasons = append(e.Reasons, fmt.Sprintf("command %q of entity %q at version %d, position %d: "+
			"recorded is %s, the new module gives %s", d.Type, d.Key, d.Version, d.Position, d.Before.String(),
			d.After.String()))
	}
	return e
}

func (g *gate) refusal(message string) *service.Error {
	return &service.Error{Op: "deploy", Service: g.Service, Kind: service.KindConflicting, Message: message}
}

func (g *gate) unread(err error) error {
	return service.FromJournal{Use: service.JournalRead, Op: "deploy", Service: g.Service,
		Otherwise: "the service's log cannot be read at present; nothing has changed"}.Of(err)
}

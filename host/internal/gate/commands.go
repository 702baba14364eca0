package gate

import (
	"context"
	"errors"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/scratch"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

const (
	// maxWindows is how many parts of the log are run again, if not the whole log is. The last part ends where
	// the log ends.
	maxWindows = 4
	// windowSpread is how many times the commands that may run a part of the log has, if the log is that long.
	// Among them those of some entities are chosen, so that the state of each entity is made once for several
	// commands: for perEntity of them, or more.
	windowSpread = 8
	perEntity    = 4
	// windowBytes bounds the commands in memory, with their events.
	windowBytes = MaxBytes
	// scanCommits bounds the commands that are read at a time.
	scanCommits = 4096
)

// MaxBytes is about the memory that a verification takes beside its sandboxes.
const MaxBytes = 8 << 20

// rerun runs recorded commands again, within a budget of their number and of time. The commands of a part of
// the log are run entity by entity, so that the state of each entity is made once.
func (g *gate) rerun(ctx context.Context) error {
	first, head := g.Log.First(g.log()), g.Log.Head(g.log())
	if head < first {
		return nil
	}
	r := &rerun{gate: g, end: time.Now().Add(g.Verify.CommandTime), begin: first, left: g.Verify.Commands}
	// An event is of at most one command, so this many commands have about as many events, or more.
	events := uint64(head - first + 1)
	windows, size := 1, events
	if events > uint64(g.Verify.Commands) {
		windows = maxWindows
		size = max(min(events, windowSpread*uint64(g.Verify.Commands))/maxWindows, 1)
	}
	for i := range windows {
		from := first
		w := window{share: r.left / (windows - i), to: first + journal.Position(size)}
		if windows > 1 {
			from += journal.Position(uint64(i) * (events - size) / uint64(windows-1))
			w = window{share: w.share, to: from + journal.Position(size), chosen: map[string]bool{},
				maxKeys: max(w.share/perEntity, 1)}
		}
		err := r.window(ctx, from, &w)
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rerun is the state of gate.rerun.
type rerun struct {
	*gate
	end   time.Time
	begin journal.Position // of the log
	left  int              // commands

	commits []*journal.Committed
	bytes   int
}

// window is a part of the log.
type window struct {
	to      journal.Position // the first position after it
	share   int              // commands that may still run
	chosen  map[string]bool  // entities; nil: all
	maxKeys int              // of chosen
}

// has reports whether a command of an entity is run.
func (w *window) has(key string) bool {
	if w.chosen == nil || w.chosen[key] {
		return true
	}
	if len(w.chosen) == w.maxKeys {
		return false
	}
	w.chosen[key] = true
	return true
}

// window runs commands whose events have positions from from on, in portions that fit into memory.
func (r *rerun) window(ctx context.Context, from journal.Position, w *window) error {
	for from < w.to && w.share > 0 {
		if err := r.spent(ctx); err != nil {
			return err
		}
		r.commits, r.bytes = r.commits[:0], 0
		next, err := r.gather(ctx, from, w)
		for err == nil && next < w.to && len(r.commits) < w.share && r.bytes < windowBytes {
			if err = r.spent(ctx); err == nil {
				next, err = r.gather(ctx, next, w)
			}
		}
		if err != nil {
			return err
		}
		w.share -= len(r.commits)
		if err := r.portion(ctx); err != nil {
			return err
		}
		from = next
	}
	return nil
}

// spent waits for a turn, and ends the stage if its time is over.
func (r *rerun) spent(ctx context.Context) error {
	if time.Now().After(r.end) {
		return errEnough
	}
	return r.Pace(ctx)
}

// gather reads commands from a position on, and returns where to go on.
func (r *rerun) gather(ctx context.Context, from journal.Position, w *window) (next journal.Position, err error) {
	next = w.to
	n := 0
	err = r.Log.Commits(ctx, r.log(), from-1, func(c *journal.Committed) error {
		// A command without events has the position of the event after it, and belongs to the part before that.
		bare := len(c.Events) == 0
		switch {
		case c.First < from || bare && c.First == from && from > r.begin:
			return nil
		case c.First > w.to || c.First == w.to && !bare:
			return errEnough
		case n == scanCommits || len(r.commits) >= w.share || r.bytes >= windowBytes:
			next = c.First
			return errEnough
		}
		if n++; w.has(c.Command.Key) {
			r.commits = append(r.commits, c)
			r.bytes += sizeOf(c)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return 0, r.unread(err)
	}
	return max(next, from+1), nil // so many commands without events are left out
}

// sizeOf is about how many bytes a command takes in memory, with its events.
func sizeOf(c *journal.Committed) int {
	n := 320 + len(c.Command.Data) + len(c.Command.Reply) + len(c.Command.Metadata)
	for i := range c.Events {
		n += 224 + len(c.Events[i].Data) + len(c.Events[i].Metadata)
	}
	return n
}

// portion runs the commands in memory again, entity by entity.
func (r *rerun) portion(ctx context.Context) error {
	next := make([]int, len(r.commits)) // the following command of the same entity; 0: none
	last := make(map[string]int, len(r.commits))
	var firsts []int
	for i, c := range r.commits {
		if before, ok := last[c.Command.Key]; ok {
			next[before] = i
		} else {
			firsts = append(firsts, i)
		}
		last[c.Command.Key] = i
	}
	for _, first := range firsts {
		ready := false // the state in the sandbox is the one on which the command ran
		for i, more := first, true; more; i, more = next[i], next[i] != 0 {
			if r.left <= 0 || time.Now().After(r.end) {
				return errEnough
			}
			var err error
			if ready, err = r.one(ctx, r.commits[i], ready); err != nil {
				return err
			}
		}
	}
	return nil
}

// one runs a command. ready says that the entity is open at the version on which the command ran, and whether
// it is open at the one after it when one returns.
func (r *rerun) one(ctx context.Context, c *journal.Committed, ready bool) (after bool, err error) {
	done := r.report.Commands
	if (done.Same+done.Different+done.NotRun)%tellEvery == 0 {
		r.Progress(StageReexecuting, int64(done.Same+done.Different+done.NotRun), int64(r.Verify.Commands))
		if err := r.Pace(ctx); err != nil {
			return false, err
		}
	}
	r.left--
	typ, known := r.New.Index().Command(service.Type(c.Command.Type))
	if !hasData(c) {
		r.report.Commands.NotRun++
		return false, nil
	}
	key, before := service.Key(c.Command.Key), c.Version-service.Version(len(c.Events))
	if !ready || r.New.Version() != before {
		if err := r.New.Open(ctx, key, before, scratch.FromAny); err != nil {
			r.report.Commands.NotRun++
			return false, r.unopened(ctx, c.Command.Key, err)
		}
	}
	got := service.RunOutcome{Problem: "the module has no command of this type"}
	same := false
	if known {
		trial, failed := r.decide(ctx, typ, c)
		switch {
		case failed != nil && (ctx.Err() != nil || !decides(failed)):
			return false, failed
		case failed != nil:
			got = service.RunOutcome{Problem: messageOf(failed)}
		case r.sameOutcome(c, &trial):
			same = true
		default:
			got = outcomeOf(&trial)
		}
	}
	if same {
		r.report.Commands.Same++
		return true, nil
	}
	if r.report.Commands.Different++; len(r.report.Commands.First) < maxFirst {
		r.report.Commands.First = append(r.report.Commands.First, service.RunDifference{Key: key,
			ID: service.CommandID(c.Command.ID), Type: service.Type(c.Command.Type), Position: c.First, Version: before,
			Data: service.ExcerptOf(c.Command.Data), Before: recorded(c), After: got})
	}
	return false, nil
}

// decide runs a command in the new module, if its schema takes the data.
func (r *rerun) decide(ctx context.Context, typ uint16, c *journal.Committed) (service.Trial, error) {
	if err := r.Fits(ctx, typ, c.Command.Data); err != nil {
		return service.Trial{}, err
	}
	return r.New.Decide(ctx, service.GuestCall{Type: typ, Time: c.Command.Time, Seed: c.Command.Seed,
		ID: service.CommandID(c.Command.ID), Metadata: c.Command.Metadata, Data: c.Command.Data})
}

// decides reports whether an error of a command is how the module decides it, under its schemas and limits.
func decides(err error) bool {
	kind := service.KindOf(err)
	return scratch.IsFault(err) || kind == service.KindTooLarge || kind == service.KindInvalid
}

// unopened decides what it means that the state on which a command ran cannot be made. It may have been
// deleted. If the events are there, the module cannot read the entity, which counts as in a replay.
func (r *rerun) unopened(ctx context.Context, key string, err error) error {
	var fault *scratch.Fault
	switch {
	case errors.As(err, &fault) && r.Verify.Mode != service.VerifyAll && !r.seen[key]:
		r.seen[key] = true
		return r.failed(ctx, key, err)
	case scratch.IsFault(err) || service.KindOf(err) == service.KindNotFound:
		return nil
	}
	return err
}

// hasData reports whether the data of a command was recorded. Data that is empty in the log was either empty
// or left out; the command's fingerprint tells which.
func hasData(c *journal.Committed) bool {
	if len(c.Command.Data) > 0 {
		return true
	}
	empty := service.Command{Key: service.Key(c.Command.Key), Type: service.Type(c.Command.Type)}
	if empty.Fingerprint() == c.Command.Fingerprint {
		return true
	}
	expected := c.Version - service.Version(len(c.Events))
	empty.Expected = &expected
	return empty.Fingerprint() == c.Command.Fingerprint
}

// sameOutcome reports whether a command has the outcome that is recorded. Types of events are the same if the
// module reads both as one.
func (r *rerun) sameOutcome(c *journal.Committed, t *service.Trial) bool {
	if t.Rejection != nil || len(t.Events) != len(c.Events) || !sameData(c.Command.Reply, t.Reply) {
		return false
	}
	index := r.New.Index()
	for i := range c.Events {
		was, known := index.ReadAs(c.Events[i].Type)
		is, _ := index.ReadAs(t.Events[i].Type)
		if !known || was != is || !sameData(c.Events[i].Data, t.Events[i].Data) {
			return false
		}
	}
	return true
}

// recorded is what the log says of a command.
func recorded(c *journal.Committed) service.RunOutcome {
	o := service.RunOutcome{Reply: service.ExcerptOf(c.Command.Reply)}
	for i := range c.Events[:min(len(c.Events), maxFirst)] {
		o.Events = append(o.Events, service.RunEvent{Type: c.Events[i].Type, Data: service.ExcerptOf(c.Events[i].Data)})
	}
	return o
}

// outcomeOf is what came of a trial.
func outcomeOf(t *service.Trial) service.RunOutcome {
	if t.Rejection != nil {
		return service.RunOutcome{Problem: messageOf(t.Rejection)}
	}
	o := service.RunOutcome{Reply: service.ExcerptOf(t.Reply)}
	for i := range t.Events[:min(len(t.Events), maxFirst)] {
		o.Events = append(o.Events, service.RunEvent{Type: t.Events[i].Type, Data: service.ExcerptOf(t.Events[i].Data)})
	}
	return o
}

// messageOf is what clients may see of an error, or the beginning of it.
func messageOf(err error) string { return string(service.ExcerptOf([]byte(textOf(err)))) }

func textOf(err error) string {
	var own *service.Error
	if fault := (*scratch.Fault)(nil); errors.As(err, &fault) {
		return fault.Error()
	}
	if !errors.As(err, &own) {
		return "internal"
	}
	text := own.Kind.String()
	if own.Code != "" {
		text += " (" + own.Code + ")"
	}
	return text + ": " + own.Message
}

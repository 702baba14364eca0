package service

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// VerifyMode says how much of a service's log is replayed before a module takes over.
type VerifyMode string

// The modes of a verification.
const (
	VerifySample VerifyMode = "sample" // entities with every type of event and every schema of snapshot, and others
	VerifyAll    VerifyMode = "all"    // all entities
	VerifyNone   VerifyMode = "none"   // nothing is replayed
)

// ParseVerifyMode reads a mode. The empty text is [VerifySample].
func ParseVerifyMode(s string) (VerifyMode, error) {
	switch m := VerifyMode(s); m {
	case "":
		return VerifySample, nil
	case VerifyAll, VerifySample, VerifyNone:
		return m, nil
	}
	return "", Errorf(KindInvalid, "%q is no way to verify; say all, sample or none", s)
}

// Verify says how a module is verified against the log of its service before it takes over. Zero fields are
// the host's own.
type Verify struct {
	Mode VerifyMode
	// Entities and Time bound how many entities of a sample are replayed, beyond those that are needed to have
	// every type of event and every schema of snapshot.
	Entities int
	Time     time.Duration
	// Commands and CommandTime bound how many recorded commands are run again.
	Commands    int
	CommandTime time.Duration
	// Timeout bounds the whole. If what must be replayed was not replayed by then, the deployment is refused.
	Timeout time.Duration
	// RequireSame refuses a module that does not decide recorded commands as they were decided, or makes other
	// snapshots of the same events.
	RequireSame bool
}

// Over fills zero fields from other.
func (v Verify) Over(other Verify) Verify {
	if v.Mode == "" {
		v.Mode = other.Mode
	}
	if v.Entities == 0 {
		v.Entities = other.Entities
	}
	if v.Time == 0 {
		v.Time = other.Time
	}
	if v.Commands == 0 {
		v.Commands = other.Commands
	}
	if v.CommandTime == 0 {
		v.CommandTime = other.CommandTime
	}
	if v.Timeout == 0 {
		v.Timeout = other.Timeout
	}
	v.RequireSame = v.RequireSame || other.RequireSame
	return v
}

// The defaults of a [Verify].
const (
	DefaultVerifyEntities    = 10_000
	DefaultVerifyTime        = 10 * time.Second
	DefaultVerifyCommands    = 50_000
	DefaultVerifyCommandTime = 5 * time.Second
	DefaultVerifyTimeout     = time.Minute
	DefaultVerifyAllTimeout  = time.Hour // with VerifyAll
)

// WithDefaults fills zero fields with the defaults.
func (v Verify) WithDefaults() Verify {
	timeout := DefaultVerifyTimeout
	if v.Mode == VerifyAll {
		timeout = DefaultVerifyAllTimeout
	}
	return v.Over(Verify{Mode: VerifySample, Entities: DefaultVerifyEntities, Time: DefaultVerifyTime,
		Commands: DefaultVerifyCommands, CommandTime: DefaultVerifyCommandTime, Timeout: timeout})
}

// Validate checks the fields. Errors are of KindInvalid.
func (v Verify) Validate() error {
	if _, err := ParseVerifyMode(string(v.Mode)); err != nil {
		return err
	}
	if v.Entities < 0 || v.Time < 0 || v.Commands < 0 || v.CommandTime < 0 || v.Timeout < 0 {
		return Errorf(KindInvalid, "the bounds of a verification must not be negative")
	}
	return nil
}

// Verification is what the verification of a module has shown.
type Verification struct {
	Mode VerifyMode    `json:"mode"`
	Took time.Duration `json:"took_ns"`
	// Unfinished says that the time was over before the budgets were spent, but not before the entities had been
	// replayed that a sample must have.
	Unfinished bool `json:"unfinished,omitempty"`
	// Entities and Events were replayed. OfTypes is the number of types of events in the log; the first and the
	// last event of each are replayed.
	Entities uint64 `json:"entities"`
	Events   uint64 `json:"events"`
	OfTypes  int    `json:"of_types"`
	// Unreadable counts entities that neither the new module nor the running one can read. FirstUnreadable
	// describes the first of them.
	Unreadable      uint64         `json:"unreadable,omitempty"`
	FirstUnreadable string         `json:"first_unreadable,omitempty"`
	States          VerifiedStates `json:"states"`
	Commands        VerifiedRuns   `json:"commands"`
}

// Brief is the verification as the history of deployments has it: with its numbers, but without the
// differences that it shows. v may be nil.
func (v *Verification) Brief() *Verification {
	if v == nil {
		return nil
	}
	b := *v
	b.States.First, b.Commands.First = nil, nil
	b.FirstUnreadable = string(excerpt([]byte(v.FirstUnreadable), maxBrief))
	return &b
}

// Same reports whether nothing has shown that the module decides or encodes otherwise.
func (v *Verification) Same() bool { return v.States.Different == 0 && v.Commands.Different == 0 }

// Warning says that states differ, and what to do; "" if none does. v may be nil.
func (v *Verification) Warning() string {
	if v == nil || v.States.Different == 0 {
		return ""
	}
	first := v.States.First[0]
	return fmt.Sprintf("of %d entities that both modules replayed, %d have another state under the same state schema, "+
		"the first is %q at version %d; snapshots of the old module are still used: raise StateSchema, so that "+
		"states are made of the events", v.States.Same+v.States.Different, v.States.Different, first.Key, first.Version)
}

// VerifiedStates are the states that the new and the running module have made of the same events, as they
// encode them. They are only compared if both have the same state schema.
type VerifiedStates struct {
	Same      uint64            `json:"same"`
	Different uint64            `json:"different"`
	First     []StateDifference `json:"first,omitempty"` // the first that differ
}

// StateDifference is an entity of which two modules make different states.
type StateDifference struct {
	Key     Key     `json:"key"`
	Version Version `json:"version"`
	Before  Excerpt `json:"before"` // of the running module
	After   Excerpt `json:"after"`  // of the new one
}

// VerifiedRuns are recorded commands that the new module has run again, from the states on which they ran.
type VerifiedRuns struct {
	Same      uint64 `json:"same"`
	Different uint64 `json:"different"`
	// NotRun counts commands that could not be run again: their data was not recorded, or the state on which
	// they ran cannot be made any more.
	NotRun uint64          `json:"not_run"`
	First  []RunDifference `json:"first,omitempty"` // the first that differ
}

// RunDifference is a command that a new module decides otherwise.
type RunDifference struct {
	Key      Key              `json:"key"`
	ID       CommandID        `json:"id"`
	Type     Type             `json:"type"`
	Position journal.Position `json:"position"` // of its first event; without events, of the event after it
	Version  Version          `json:"version"`  // of the entity before it
	Data     Excerpt          `json:"data"`
	Before   RunOutcome       `json:"before"` // as recorded
	After    RunOutcome       `json:"after"`
}

// RunOutcome is what came of a command.
type RunOutcome struct {
	Events []RunEvent `json:"events,omitempty"`
	Reply  Excerpt    `json:"reply,omitempty"`
	// Problem says why there is no reply: the command was rejected, or has failed.
	Problem string `json:"problem,omitempty"`
}

// String is the outcome in one line.
func (o *RunOutcome) String() string {
	if o.Problem != "" {
		return o.Problem
	}
	var b strings.Builder
	for _, e := range o.Events {
		fmt.Fprintf(&b, "%s %s, ", e.Type, e.Data)
	}
	fmt.Fprintf(&b, "reply %s", o.Reply)
	return b.String()
}

// RunEvent is an event of a [RunOutcome].
type RunEvent struct {
	Type string  `json:"type"`
	Data Excerpt `json:"data"`
}

// maxExcerpt bounds an [Excerpt], and maxBrief a text of a brief one, in bytes.
const (
	maxExcerpt = 4 << 10
	maxBrief   = 256
)

// Excerpt is data for a reader: its beginning, if it is long.
type Excerpt string

// ExcerptOf makes an excerpt.
func ExcerptOf(data []byte) Excerpt { return excerpt(data, maxExcerpt) }

func excerpt(data []byte, maxBytes int) Excerpt {
	if len(data) <= maxBytes {
		return Excerpt(data)
	}
	return Excerpt(bytes.ToValidUTF8(data[:maxBytes], nil)) + "…"
}

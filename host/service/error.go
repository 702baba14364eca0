package service

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind classifies errors by what a caller can do about them. It is the only part of an error that code
// branches on. Names are stable and are used on the wire; numbers are not.
type Kind uint8

// The kinds of errors, grouped by when they can happen.
const (
	KindInternal Kind = iota // a bug in the host, or a failure that has no other kind

	// The request itself.
	KindInvalid      // malformed input: a bad name, bad JSON, a bad header
	KindTooLarge     // input above a size limit
	KindUnauthorized // no or a wrong token
	KindNotFound     // no such service, module or resource
	KindUnknownType  // the service has no such command or query
	KindUnsupported  // a protocol, media type or feature that the host does not support

	// Upload and deployment.
	KindBadModule   // the module breaks rules of the ABI; Reasons lists all of them
	KindConflicting // in conflict with what exists: a deployment with the log, or a command with a stopped service

	// Anything that would take more of the host's resources than there are; see Resource, Used and Limit. A
	// bound that frees itself is reached, such as that of a mailbox; nothing was written; retry after
	// RetryAfter.
	KindOverloaded
	KindQuota // a resource is exhausted until someone acts; nothing was written

	// A command or query, before the guest ran.
	KindVersionConflict // the entity is not at the expected version; nothing written
	KindIDReused        // the command id was used with other content; nothing written
	KindUnavailable     // the service or the journal is not taking commands; nothing written
	KindFull            // the journal's disk has no room for more; nothing written; reading goes on
	KindDamaged         // the service's log is damaged; nothing was written; other services are not affected
	KindDeadline        // the deadline passed before the command ran; nothing written
	KindCanceled        // the caller went away before the command ran; nothing written

	// A command or query, in the guest. Nothing is written and the sandbox is reset.
	KindRejected        // the domain refused: Code and Message are the service's own
	KindFault           // the handler failed: panic, error after an event, undecodable body
	KindTrap            // the guest trapped: unreachable, out of bounds, division, bad indirect call
	KindGuestFuel       // the call spent its fuel
	KindGuestDeadline   // the guest computed longer than its limit of processor time, or the caller's deadline passed
	KindGuestMemory     // the guest ran out of its memory limit
	KindGuestExit       // the guest called proc_exit
	KindGuestStack      // the guest's call stack was exhausted
	KindProtocol        // the guest's answer broke the ABI
	KindOutcomeTooLarge // more events or bytes than the limits allow

	// After the guest ran.
	KindUnknown // the connection or the disk failed meanwhile; send the same id again

	// Reading.
	KindBadCursor // a cursor of another service, of the future, or garbage
)

// String is the stable name of the kind, as clients see it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal"
}

// kindNames are part of the wire format of errors and must not be changed.
var kindNames = [...]string{
	KindInternal:        "internal",
	KindInvalid:         "invalid",
	KindTooLarge:        "too_large",
	KindUnauthorized:    "unauthorized",
	KindNotFound:        "not_found",
	KindUnknownType:     "unknown_type",
	KindUnsupported:     "unsupported",
	KindBadModule:       "bad_module",
	KindConflicting:     "conflict",
	KindVersionConflict: "version_conflict",
	KindIDReused:        "command_id_reused",
	KindOverloaded:      "overloaded",
	KindUnavailable:     "unavailable",
	KindDeadline:        "deadline_exceeded",
	KindCanceled:        "canceled",
	KindRejected:        "rejected",
	KindFault:           "fault",
	KindTrap:            "trap",
	KindGuestDeadline:   "guest_deadline",
	KindGuestMemory:     "guest_memory",
	KindGuestExit:       "guest_exit",
	KindGuestStack:      "guest_stack",
	KindProtocol:        "protocol_violation",
	KindOutcomeTooLarge: "outcome_too_large",
	KindUnknown:         "unknown_outcome",
	KindBadCursor:       "bad_cursor",
	KindGuestFuel:       "guest_fuel",
	KindFull:            "journal_full",
	KindDamaged:         "journal_damaged",
	KindQuota:           "quota",
}

// ParseKind finds a kind by its stable name.
func ParseKind(s string) (Kind, bool) {
	for k, n := range kindNames {
		if n == s {
			return Kind(k), true
		}
	}
	return KindInternal, false
}

// Error is the one error type of the host. Message is safe to show to a client;
// Err and Detail are for the operator.
type Error struct {
	Op      string   // the operation, such as "send"; may be empty
	Service Name     // the affected service; may be empty
	Kind    Kind     // what a caller branches on
	Code    string   // of a rejection or fault: the service's own code
	Message string   // what was wrong, what was expected, what to do
	Reasons []string // every violation, if there can be several
	// Of data that does not match its schema: a JSON Pointer (RFC 6901) to the place; "" is the whole data.
	Pointer    *string
	Version    *Version      // of a version conflict: the entity's present version
	Detail     string        // for the operator only: guest stack trace, paths
	RetryAfter time.Duration // when to try again; 0 if unknown
	Fuel       uint64        // that the failed call spent in the guest; 0 if there was none
	Resource   string        // of an overload or quota: the exhausted resource of the host's budget; may be empty
	Used       int64         // of Resource, at the request
	Limit      int64         // of Resource, in the account that is exhausted
	Err        error         // the cause; may be nil
}

// Errorf makes an error of a kind with a formatted message that is safe for clients. The operand of a %w verb
// is kept as the cause.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), Err: errors.Unwrap(err)}
}

// Error implements error. One line has everything that an operator needs.
func (e *Error) Error() string {
	s := ""
	if e.Op != "" {
		s = e.Op
	}
	if e.Service != "" {
		if s != "" {
			s += " "
		}
		s += string(e.Service)
	}
	if s != "" {
		s += ": "
	}
	s += e.Kind.String()
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	for _, r := range e.Reasons {
		s += "; " + r
	}
	if e.Err != nil {
		if cause := e.Err.Error(); cause != e.Message {
			s += ": " + cause
		}
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches the deadline and cancel kinds with the errors of package context.
func (e *Error) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Kind == KindDeadline || e.Kind == KindGuestDeadline
	case context.Canceled:
		return e.Kind == KindCanceled
	}
	return false
}

// RetryAfterOf is the time after which an error asks to try again; 0 if it does not.
func RetryAfterOf(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

// KindOf returns the kind of the first [Error] in err's tree. Context errors without one are KindDeadline and
// KindCanceled; everything else is KindInternal.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return KindDeadline
	case errors.Is(err, context.Canceled):
		return KindCanceled
	}
	return KindInternal
}

// NotBegun is the error of a request whose sender gave up before it began: KindDeadline or KindCanceled,
// depending on how the sender's context ended.
func NotBegun(name Name, err error) error {
	kind := KindCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		kind = KindDeadline
	}
	return &Error{Service: name, Kind: kind, Message: "ended before it began", Err: err}
}

package journal

import (
	"errors"
	"fmt"
)

// ErrorKind classes errors by what a caller can do about them.
type ErrorKind uint8

// The kinds of errors.
const (
	KindInternal    ErrorKind = iota // anything else
	KindInvalid                      // the commit is malformed or above a limit; nothing written
	KindVersion                      // the entity is not at the expected version; nothing written
	KindDuplicateID                  // the command id is in use; nothing written
	KindClosed                       // the journal was closed; nothing written
	KindFailed                       // a write or sync failed: what was in flight has an unknown outcome
	KindFull                         // the disk has no room; from Append: nothing written
	KindLocked                       // another process has the journal open
	KindCorrupt                      // bytes on disk are not what was written
	KindCanceled                     // the context ended first; nothing written
	KindTrimmed                      // a retention has deleted what is asked for
)

// String names the kind, for messages.
func (k ErrorKind) String() string {
	names := [...]string{"internal", "invalid", "version conflict", "duplicate command id", "closed",
		"failed", "full", "locked", "corrupt", "canceled", "deleted by retention"}
	if int(k) < len(names) {
		return names[k]
	}
	return "internal"
}

// Error is the error type of the journal. Callers branch on Kind alone.
type Error struct {
	Op     string    // what was being done
	Log    LogName   // the log concerned; may be empty
	Kind   ErrorKind // what a caller branches on
	Detail string    // what was wrong, what was expected
	Err    error     // the cause; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	s := "journal"
	if e.Op != "" {
		s += " " + e.Op
	}
	if e.Log != "" {
		s += " " + string(e.Log)
	}
	s += ": " + e.Kind.String()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first [Error] in err's tree, or KindInternal.
func KindOf(err error) ErrorKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}

// DetailOf is what the innermost [Error] in err's tree says was wrong.
func DetailOf(err error) string {
	detail := ""
	var e *Error
	for errors.As(err, &e) {
		if e.Detail != "" {
			detail = e.Detail
		}
		err = e.Err
	}
	return detail
}

// Errorf makes an [Error] with a formatted detail.
func Errorf(kind ErrorKind, op string, log LogName, format string, args ...any) *Error {
	return &Error{Op: op, Log: log, Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

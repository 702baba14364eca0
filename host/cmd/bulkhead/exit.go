package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// The exit codes are part of the interface and must not be changed.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitRejected    = 3
	exitUnavailable = 4
	exitUnknown     = 5
	exitCheck       = 6
	exitFull        = 7
)

// exitHelp is part of the help; the README has the same list.
const exitHelp = `Exit codes:
  0  done
  1  failed: a fault in the service or the host, no such service, a refused module
  2  usage: wrong flags or arguments, a malformed file or request
  3  rejected: the service said no, or the entity was not at --expect-version; nothing was written
  4  unavailable: no host there, overloaded, or out of time before it began; nothing was written, try again
  5  unknown: the connection or the disk failed in between; send the same --id again
  6  a check did not pass: damage in a journal, a broken rule in a module or one that would be refused, books that do not balance
  7  full: the disk has no room for more, or a quota of the host is used up; nothing was written, make room and try again
`

// usageError is an invalid command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// checkError is a failed check. Its details have been printed; the message only summarises.
type checkError struct{ summary string }

func (e checkError) Error() string { return e.summary }

// exitCode finds the code for an error; nil is exitOK.
func exitCode(err error) int {
	var usage usageError
	var check checkError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &check), journal.KindOf(err) == journal.KindCorrupt:
		return exitCheck
	}
	switch service.KindOf(err) {
	case service.KindInvalid, service.KindTooLarge, service.KindUnknownType, service.KindBadCursor:
		return exitUsage
	case service.KindRejected, service.KindVersionConflict:
		return exitRejected
	case service.KindOverloaded, service.KindUnavailable, service.KindDeadline, service.KindCanceled:
		return exitUnavailable
	case service.KindUnknown:
		return exitUnknown
	case service.KindFull, service.KindQuota:
		return exitFull
	case service.KindDamaged:
		return exitCheck
	}
	return exitFailure
}

// fail prints an error and returns its exit code.
func (e *env) fail(err error) int {
	code := exitCode(err)
	var s *service.Error
	isService := errors.As(err, &s)
	if e.json || e.programs {
		out := jsonError{Exit: code, Message: err.Error()}
		if isService {
			out.Kind, out.Code, out.Reasons, out.Pointer = s.Kind.String(), s.Code, s.Reasons, s.Pointer
			out.Version = s.Version
			if s.Message != "" {
				out.Message = s.Message
			}
		}
		_ = writeJSON(e.err, struct {
			Error jsonError `json:"error"`
		}{out}, false)
		return code
	}
	if isService {
		fmt.Fprintf(e.err, "bulkhead: %s\n", safetext.Text(forPeople(s)))
		for _, r := range s.Reasons {
			fmt.Fprintf(e.err, "  - %s\n", safetext.Text(r))
		}
	} else {
		for _, one := range apart(err) {
			fmt.Fprintf(e.err, "bulkhead: %s\n", safetext.Text(one.Error()))
		}
	}
	if code == exitUsage && !isService {
		fmt.Fprintf(e.err, "Run \"bulkhead %s--help\" for how it is used.\n", e.command)
	}
	return code
}

// apart splits an error that only joins several. Each gets its own line.
func apart(err error) (all []error) {
	switch joined := err.(type) {
	case usageError:
		return apart(joined.err)
	case interface{ Unwrap() []error }:
		if errs := joined.Unwrap(); err.Error() == errors.Join(errs...).Error() {
			for _, one := range errs {
				all = append(all, apart(one)...)
			}
			return all
		}
	}
	return []error{err}
}

// forPeople is an error in one line, without repetitions of its message.
func forPeople(s *service.Error) string {
	line := s.Kind.String()
	if s.Code != "" {
		line += " (" + s.Code + ")"
	}
	if s.Message != "" {
		line += ": " + s.Message
	}
	if s.Err != nil && !strings.Contains(line, s.Err.Error()) {
		line += ": " + s.Err.Error()
	}
	return line
}

// jsonError is the form of an error on standard error with --json.
type jsonError struct {
	Exit    int              `json:"exit"`
	Kind    string           `json:"kind,omitempty"`
	Code    string           `json:"code,omitempty"`
	Message string           `json:"message"`
	Reasons []string         `json:"reasons,omitempty"`
	Pointer *string          `json:"pointer,omitempty"`
	Version *service.Version `json:"version,omitempty"`
}

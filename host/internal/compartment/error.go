package compartment

import (
	"fmt"
	"time"
)

// Reason says why the work failed.
type Reason uint8

// The reasons.
const (
	_           Reason = iota
	Refused            // the input is at fault; Text says why
	Memory             // the child needed more memory than Task.Memory
	CPU                // the child needed more processor time than Task.CPU
	Wall               // the child took longer than Task.Wall
	Canceled           // the caller's context ended
	Crashed            // the child failed in an unexpected way, for example by a bug that the input triggers
	Killed             // somebody else killed the child: an operator, or a system that is short of memory
	Unstartable        // there is no child: the command does not exist, or the system has no resources for it
	Failed             // the work failed for a reason that has nothing to do with the input; Text says which
)

// Error says why the work failed, and what it had used by then.
type Error struct {
	Reason   Reason
	Text     string        // with Refused and Failed
	UsedCPU  time.Duration // of the child, as the system counted it
	UsedWall time.Duration
	// UsedMemory is what the child last reported, in bytes. It can be less than the limit that it
	// hit, as the last request for memory is not included.
	UsedMemory int64
	Output     string // what the child wrote to standard error, cut; for the operator
	Err        error  // the cause; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	s := e.Reason.String()
	if e.Text != "" {
		s += ": " + e.Text
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.UsedWall > 0 {
		s += fmt.Sprintf(" (after %v, %v of processor time, with %d bytes)", e.UsedWall.Round(time.Millisecond),
			e.UsedCPU.Round(time.Millisecond), e.UsedMemory)
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// String describes the reason.
func (r Reason) String() string {
	switch r {
	case Refused:
		return "the input was refused"
	case Memory:
		return "the child used its memory up"
	case CPU:
		return "the child used its processor time up"
	case Wall:
		return "the child ran out of time"
	case Canceled:
		return "the caller gave up"
	case Crashed:
		return "the child crashed"
	case Killed:
		return "the child was killed"
	case Unstartable:
		return "the child could not be started"
	case Failed:
		return "the child failed"
	}
	return "unknown"
}

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/tetratelabs/wazero/sys"
)

// classify turns wazero's error for a failed call into the host's error. It is the one place that looks at
// wazero's errors. What it does not know is KindInternal.
func (i *Instance) classify(err error) *service.Error {
	if short := i.memory.short; short != nil { // the cause of whatever failed afterwards
		return i.shortage(short)
	}
	e := &service.Error{Service: i.name, Err: err}
	e.Detail = trace(err)
	var trap *hostTrap
	var exit *sys.ExitError
	switch {
	case errors.As(err, &trap):
		e.Kind, e.Message, e.Err = trap.kind, trap.text, trap
		if e.Kind == service.KindOverloaded {
			e.RetryAfter = retryTurn
		}
		if why := i.lastWords(); why != "" && trap.kind == service.KindGuestExit {
			e.Message += ": " + why
		}
	case errors.As(err, &exit):
		e.Kind, e.Message = service.KindInternal, "the sandbox was closed during a call"
	default:
		i.classifyTrap(e, err)
	}
	// Refused memory is the cause of whatever failed afterwards.
	if i.memory.refused && (e.Kind == service.KindTrap || e.Kind == service.KindGuestExit) {
		e.Kind = service.KindGuestMemory
		e.Message = fmt.Sprintf("the guest ran out of its memory limit of %d bytes, of which it had %d; keep less, "+
			"or raise the service's limit memory: %s",
			i.memory.limit, i.MemoryBytes(), e.Message)
	}
	return e
}

// overflow ends a guest whose calls are nested too deeply; the rewritten module calls it.
func (i *Instance) overflow() {
	panic(&hostTrap{service.KindGuestStack, fmt.Sprintf(
		"the guest's call stack is exhausted: it reached the limit of %d bytes; if this is no endless recursion, "+
			"raise the service's limit stack",
		i.limits.StackBytes)})
}

// traps maps wazero's texts for the errors of a guest to ours.
var traps = map[string]string{
	"unreachable":                   "unreachable",
	"out of bounds memory access":   "memory access out of bounds",
	"invalid table access":          "indirect call or table access out of bounds",
	"indirect call type mismatch":   "indirect call of a function of another type",
	"integer divide by zero":        "integer division by zero",
	"integer overflow":              "integer overflow",
	"invalid conversion to integer": "conversion of a number that is no integer",
	"null reference":                "null reference",
}

func (i *Instance) classifyTrap(e *service.Error, err error) {
	cause := err
	for u := errors.Unwrap(cause); u != nil; u = errors.Unwrap(cause) {
		cause = u
	}
	text := cause.Error()
	name, known := traps[text]
	switch {
	case text == "stack overflow":
		// The service's limit is reached first; this is wazero's own.
		e.Kind, e.Message = service.KindGuestStack, "the guest's call stack is exhausted"
	case known:
		e.Kind, e.Message = service.KindTrap, "the guest trapped: "+name
		why := i.lastWords()
		if why != "" {
			e.Message += ": " + why
		}
		// A Go guest limits its own stack and prints this before it gives up.
		if strings.Contains(why, "stack overflow") || strings.Contains(why, "stack exceeds") {
			e.Kind = service.KindGuestStack
		}
	case i.module == nil: // instantiation failed: a segment out of bounds, for example
		first, _, _ := strings.Cut(err.Error(), "\n")
		e.Kind, e.Message = service.KindTrap, "the module cannot be instantiated: "+clean([]byte(first))
	default:
		e.Kind, e.Message = service.KindInternal, "the sandbox failed"
	}
}

// lastWords is what the guest said about its trap: the message it set with bulkhead_v1.fault, or the first
// line of a panic on stderr.
func (i *Instance) lastWords() string {
	if len(i.words) > 0 {
		return clean(i.words)
	}
	for line := range bytes.Lines(i.log.panics) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("panic: ")) || bytes.HasPrefix(line, []byte("fatal error: ")) ||
			bytes.HasPrefix(line, []byte("runtime: goroutine stack exceeds")) {
			return clean(line[:min(len(line), 512)])
		}
	}
	return ""
}

// trace extracts the guest's stack trace from wazero's error.
func trace(err error) string {
	if err == nil {
		return ""
	}
	_, stack, ok := strings.Cut(err.Error(), "wasm stack trace:")
	if !ok {
		return ""
	}
	const maxBytes = 8 << 10
	var own []byte
	for line := range strings.Lines(strings.TrimSpace(stack)) {
		if !strings.Contains(line, metering.ImportModule+".") { // the meter's functions are not part of the guest
			own = append(own, strings.TrimSpace(line)...)
			own = append(own, '\n')
		}
	}
	return string(own[:min(len(own), maxBytes)])
}

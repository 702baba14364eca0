package pebbleindex

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

var (
	errClosed   = &journal.Error{Op: "index", Kind: journal.KindClosed, Detail: "the index was closed"}
	errOpening  = errors.New("the index is being opened; it is compacted after that")
	errReadOnly = &journal.Error{Op: "index", Kind: journal.KindInvalid, Detail: "the index is open for reading only"}
)

func damaged(op, where string, err error) error {
	return &journal.Error{Op: op, Kind: journal.KindCorrupt, Detail: where + " is damaged", Err: err}
}

// classify gives errors their kind.
func classify(op string, err error) error {
	var ours *journal.Error
	if err == nil || errors.As(err, &ours) {
		return err
	}
	kind := journal.KindInternal
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		kind = journal.KindCanceled
	case errors.Is(err, os.ErrClosed) || errors.Is(err, pebble.ErrClosed):
		kind = journal.KindClosed
	case errors.Is(err, pebble.ErrReadOnly):
		kind = journal.KindInvalid
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EFBIG) || errors.Is(err, syscall.EDQUOT):
		kind = journal.KindFull
	case isDamage(err):
		kind = journal.KindCorrupt
	}
	return &journal.Error{Op: op, Kind: kind, Err: err}
}

// isDamage says whether an error of Pebble means that its files are not what it wrote, as opposed to a system that
// cannot read them now.
func isDamage(err error) bool {
	return pebble.IsCorruptionError(err) && !ofTheSystem(err) || notTheFile(err)
}

// notTheFile says that something else is in the place of a file or a directory.
func notTheFile(err error) bool {
	return errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR)
}

// ofTheSystem tells errors of the system from those of Pebble's own checks. A missing file is no error of the system:
// Pebble asks only for files that it has written.
func ofTheSystem(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && !errors.Is(err, fs.ErrNotExist) && !notTheFile(err)
}

// openError is classify for opening, where everything that Pebble finds wrong is damage.
func openError(dir string, err error) error {
	var ours *journal.Error
	switch known := errors.As(err, &ours); {
	case err == nil, ofTheSystem(err), known &&
		(ours.Kind != journal.KindCorrupt || strings.Contains(err.Error(), dir)):
		return classify("open", err)
	}
	return damaged("open", dir, err)
}

// fatal is what Pebble says when its own state is wrong.
type fatal struct{ text string }

func (f *fatal) Error() string { return "pebble gave up: " + f.text }

// guarded runs a call of Pebble. Should Pebble give up within it, that is its error. Other panics of Pebble are
// damage if anyPanic is set; those of the caller's own code, and all if it is not set, go on.
func guarded(anyPanic bool, call func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *fatal:
			err = r
		default:
			if !anyPanic {
				panic(r)
			}
			text, _, _ := strings.Cut(strings.TrimSpace(fmt.Sprint(r)), "\n")
			err = damaged("index", "what Pebble reads", errors.New(text))
		}
	}()
	return call()
}

// withinGuarded says whether the caller was called by guarded.
func withinGuarded() bool {
	pcs := make([]uintptr, 256)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "/pebbleindex.guarded") {
			return true
		}
		if !more {
			return false
		}
	}
}

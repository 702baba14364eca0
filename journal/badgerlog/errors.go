package badgerlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Badger formats many errors with %+v, so that errors.Is does not find what is inside. Every match on
// the text of an error or of a log line is in this file.

var (
	// errDamaged is in errors that say that the log's files are not what was written.
	errDamaged = errors.New("damaged")
	// errFaulted is the end of writing after a fault of memory within a file of values.
	errFaulted = errors.New("a value could not be read; Badger would wait for its file for ever")
	// errLogged is the end of writing after Badger logged an error while it wrote.
	errLogged = errors.New("an error was logged while Badger wrote")
)

func damaged(file, format string, args ...any) error {
	return fmt.Errorf("%s is %w: %s", file, errDamaged, fmt.Sprintf(format, args...))
}

// Classify gives an error of Badger or of the system its kind. An error that has one stays as it is.
func Classify(op string, err error) error {
	if err == nil {
		return nil
	}
	var ours *journal.Error
	if errors.As(err, &ours) {
		return err
	}
	kind := journal.KindInternal
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		kind = journal.KindCanceled
	case isErrno(err, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG):
		kind = journal.KindFull
	case errors.Is(err, badger.ErrDBClosed) || errors.Is(err, badger.ErrBlockedWrites):
		kind = journal.KindClosed
	case errors.Is(err, badger.ErrKeyNotFound): // of a key that was just seen
		kind = journal.KindCorrupt
	case errors.Is(err, errDamaged) || errors.Is(err, badger.ErrTruncateNeeded) || saysChecksum(err):
		kind = journal.KindCorrupt
	}
	return &journal.Error{Op: op, Kind: kind, Err: err}
}

// isErrno reports whether an error is one of these, or has the text of one.
func isErrno(err error, these ...syscall.Errno) bool {
	text := err.Error()
	for _, e := range these {
		if errors.Is(err, e) || strings.Contains(text, e.Error()) {
			return true
		}
	}
	return false
}

func saysChecksum(err error) bool { return strings.Contains(err.Error(), "checksum mismatch") }

// saysLocked reports whether Badger refused to open a directory that another process has open.
func saysLocked(err error) bool {
	return strings.Contains(err.Error(), "Cannot acquire directory lock")
}

// ofTheSystem tells errors that the system gave from those that Badger's own checks found.
func ofTheSystem(err error) bool {
	return saysLocked(err) || isErrno(err, syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.EIO, syscall.ENOSPC,
		syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EFBIG, syscall.ENOENT)
}

// ofAReader reports whether Badger logs a line of this format because a value could not be read. Such a line
// says nothing about what is being written meanwhile. All other lines are taken to say something about it.
func ofAReader(format string) bool {
	return strings.HasPrefix(format, "Unable to read: Key:") || strings.HasPrefix(format, "Invalid read: vp:") ||
		strings.HasPrefix(format, "Key: %v, Version : %v")
}

// firstLine is the first line of what a panic says.
func firstLine(panicked any) string {
	text, _, _ := strings.Cut(strings.TrimSpace(fmt.Sprint(panicked)), "\n")
	return text
}

package stored

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// ErrStop ends a scan that has all it wants.
var ErrStop = errors.New("stop")

// ReadError wraps an error of the storage; errors of yield and of ours pass as they are.
func ReadError(op string, log journal.LogName, err error) error {
	var ours *journal.Error
	if err == nil || errors.As(err, &ours) {
		return err
	}
	return &journal.Error{Op: op, Log: log, Kind: StorageKind(err), Err: err}
}

// StorageKind classes an error of the storage: its own kind if it has one.
func StorageKind(err error) journal.ErrorKind {
	if k := journal.KindOf(err); k != journal.KindInternal {
		return k
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return journal.KindCanceled
	}
	return journal.KindInternal
}

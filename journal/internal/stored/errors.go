package stored

import (
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

package stored

import (
	"context"
	"errors"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

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

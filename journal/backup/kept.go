package backup

import (
	"context"
	"errors"
	"os"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// Kept yields the kept events of a log in files, which come in the order of [Files], by position. They are those that
// the log had when its first batch in the files was the first of the log; those whose batches are in the files are not
// among them. An event and its slices are valid during their yield only. An error of yield ends the reading and is
// returned unchanged. What is wrong with the files is an error of kind KindCorrupt; as Kept ends once it has all kept
// events, what comes after them is not checked.
func Kept(ctx context.Context, files []string, log journal.LogName, yield func(*journal.Event) error) error {
	var first journal.Batch // of the log in the files
	var cut format.Cut      // of the retention that let the log begin there
	err := eachBatch(ctx, files, log, func(b *journal.Batch, block journal.Block) error {
		if first.Sequence == 0 {
			first = *b
		}
		if first.Sequence == 1 { // no retention had deleted anything
			return errEnough
		}
		return format.EachBase(block, func(_ *format.BatchHeader, r format.BaseRecord) error {
			if r.Cut == nil || r.Cut.Sequence < first.Sequence {
				return nil
			}
			cut = *r.Cut
			return errEnough
		})
	})
	if err != nil || cut.Sequence == 0 {
		return err
	}
	return eachBatch(ctx, files, log, func(b *journal.Batch, block journal.Block) error {
		switch {
		case b.Sequence > cut.At:
			return errEnough
		case !cut.Keeps(b.Sequence):
			return nil
		}
		return format.EachBase(block, func(_ *format.BatchHeader, r format.BaseRecord) error {
			if r.Kept == nil || r.Kept.Position >= first.First {
				return nil
			}
			return yield(r.Kept)
		})
	})
}

// eachBatch yields the batches of a log in files, until yield returns errEnough.
func eachBatch(
	ctx context.Context, files []string, log journal.LogName, yield func(*journal.Batch, journal.Block) error,
) error {
	var theirs error
	h := Handler{Batch: func(b *journal.Batch, data []byte) error {
		if err := ctx.Err(); err != nil || b.Log != log {
			return err
		}
		theirs = yield(b, journal.Block{Log: b.Log, First: b.First, Sequence: b.Sequence, Data: data})
		return theirs
	}}
	for _, name := range files {
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = Read(in, h)
		err = errors.Join(err, in.Close())
		switch {
		case errors.Is(theirs, errEnough):
			return nil
		case theirs != nil:
			return theirs
		case err != nil:
			return inFile(name, err)
		}
	}
	return nil
}

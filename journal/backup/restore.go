package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// RestoreOptions are the choices of Restore and Import.
type RestoreOptions struct {
	// Module, if not nil, stores a module.
	Module func(digest Hash, module []byte) error
	// Progress, if not nil, is told now and then how far it has come.
	Progress func(Progress)
}

// Restore puts backups into a storage that has no log yet: the files as [Files] gives
// them, each continuing the one before. The index is left to the next journal that
// is opened on the storage. After an error the storage holds a part and is of no
// use. The result is the manifest of the last file.
func Restore(ctx context.Context, s journal.Storage, files []string, o RestoreOptions) (*Manifest, error) {
	logs, err := s.Log.Logs(ctx)
	if err != nil {
		return nil, err
	}
	if len(logs) > 0 {
		return nil, errorf(journal.KindInvalid, "there are logs already; a backup is restored into an empty journal")
	}
	in := inserter{ctx: ctx, log: s.Log, ends: map[journal.LogName]*journal.Batch{}, o: o}
	var last *Manifest
	for _, name := range files {
		m, err := in.file(name, last)
		if err != nil {
			return nil, inFile(name, err)
		}
		last = m
	}
	return last, in.flush()
}

// Check reads backups, in the order that [Files] gives them, and proves what can be
// proved without restoring them: each file whole, each batch and record, the chain of
// batches over all files, each continuing the one before.
func Check(ctx context.Context, files []string, o RestoreOptions) (*Manifest, error) {
	in := inserter{ctx: ctx, ends: map[journal.LogName]*journal.Batch{}, dry: true, o: o}
	var last *Manifest
	for _, name := range files {
		m, err := in.file(name, last)
		if err != nil {
			return nil, inFile(name, err)
		}
		last = m
	}
	return last, nil
}

// Import appends what is in a file to the logs of a storage on which no journal is
// open: the same batches with the same positions. Batches that are already there
// must be the same and are passed over, so importing again is safe. What comes first
// must continue the log, or begin it. Nothing is appended if anything in the file is
// wrong or does not fit.
func Import(ctx context.Context, s journal.Storage, name string, o RestoreOptions) (*Manifest, error) {
	check := inserter{ctx: ctx, log: s.Log, ends: map[journal.LogName]*journal.Batch{}, present: true, dry: true}
	if _, err := check.file(name, nil); err != nil {
		return nil, inFile(name, err)
	}
	in := inserter{ctx: ctx, log: s.Log, ends: map[journal.LogName]*journal.Batch{}, present: true, o: o}
	m, err := in.file(name, nil)
	if err == nil {
		err = in.flush()
	}
	return m, inFile(name, err)
}

// inserter appends the batches of files to logs.
type inserter struct {
	ctx      context.Context
	log      journal.LogStore
	ends     map[journal.LogName]*journal.Batch
	present  bool // there may be logs already
	dry      bool // only check whether it fits
	complete bool // what is read is a complete backup
	o        RestoreOptions
	blocks   []journal.Block
	bytes    int
	progress Progress
}

func (in *inserter) file(name string, previous *Manifest) (*Manifest, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return in.read(f, previous)
}

func (in *inserter) read(r io.Reader, previous *Manifest) (*Manifest, error) {
	h := Handler{Batch: in.batch}
	if !in.dry {
		h.Module = in.o.Module
	}
	h.Head = func(h Head) error {
		in.complete = h.Previous == "" && (!h.Piece || in.log == nil) && !in.present
		if previous != nil && h.Previous != previous.ID {
			return errorf(journal.KindInvalid, "it does not continue the file before it")
		}
		return nil
	}
	return Read(r, h)
}

// end is the last batch of a log.
func (in *inserter) end(log journal.LogName) (*journal.Batch, error) {
	if end := in.ends[log]; end != nil {
		return end, nil
	}
	end := &journal.Batch{}
	if in.present {
		last, ok, err := in.log.Last(in.ctx, log)
		if err != nil {
			return nil, err
		}
		if ok {
			b, err := format.ReadBatch(last.Data, nil)
			if err != nil {
				return nil, err
			}
			end = &b
		}
	}
	in.ends[log] = end
	return end, nil
}

func (in *inserter) batch(b *journal.Batch, data []byte) error {
	if err := in.ctx.Err(); err != nil {
		return err
	}
	in.progress.Batches++
	in.progress.Bytes += uint64(len(data))
	in.progress.Log = b.Log
	if in.progress.Batches%256 == 0 && in.o.Progress != nil {
		in.o.Progress(in.progress)
	}
	end, err := in.end(b.Log)
	if err != nil {
		return err
	}
	if b.Sequence <= end.Sequence && in.present {
		return in.same(b, data)
	}
	// A complete backup begins where a retention has let the log begin; that there was one
	// is checked when the journal is opened.
	trimmed := end.Sequence == 0 && in.complete
	if why := b.Follows(end); why != "" && !trimmed {
		if end.Sequence == 0 {
			why += ", and there is nothing before it here; import what comes first"
		}
		return errorf(journal.KindInvalid, "it does not fit behind what is there of log %s: %s", b.Log, why)
	}
	*end = *b
	if in.dry {
		return nil
	}
	in.blocks = append(in.blocks, journal.Block{Log: b.Log, First: b.First, Sequence: b.Sequence,
		Data: bytes.Clone(data)})
	in.bytes += len(data)
	if in.bytes >= 4<<20 || len(in.blocks) >= 4096 {
		return in.flush()
	}
	return nil
}

// same checks that a batch is the one that is there.
func (in *inserter) same(b *journal.Batch, data []byte) error {
	same := false
	err := in.log.Blocks(in.ctx, b.Log, b.First, func(block journal.Block) error {
		if block.Sequence < b.Sequence {
			return nil
		}
		same = block.Sequence == b.Sequence && bytes.Equal(block.Data, data)
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if !same {
		return errorf(journal.KindInvalid, "batch %d of log %s is another one here: the file is of another journal",
			b.Sequence, b.Log)
	}
	return nil
}

func (in *inserter) flush() error {
	if len(in.blocks) == 0 {
		return nil
	}
	err := in.log.Append(in.ctx, in.blocks)
	clear(in.blocks)
	in.blocks, in.bytes = in.blocks[:0], 0
	return err
}

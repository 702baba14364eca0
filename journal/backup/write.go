package backup

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// Source is what of a journal a backup needs; see [commitlog.Journal].
type Source interface {
	// Logs says how far all logs have come at one moment.
	Logs() []journal.LogInfo
	Batches(ctx context.Context, log journal.LogName, r journal.BatchRange, yield func(journal.Block) error) error
}

var _ Source = (*commitlog.Journal)(nil)

// Options are the choices of Write.
type Options struct {
	// Since is the manifest of the backup that this one continues; nil makes one
	// that is complete in itself.
	Since *Manifest
	// Modules lists the stored modules, and Module reads one. nil: there are none.
	Modules func() ([]Hash, error)
	Module  func(Hash) ([]byte, error)
	// Progress, if not nil, is told now and then how far it has come.
	Progress func(Progress)
}

// Progress says how far a backup or restoring has come.
type Progress struct {
	Log     journal.LogName
	Batches uint64 // so far
	Total   uint64 // 0: not known
	Bytes   uint64 // so far
}

// Write writes a backup of all logs as they are at one moment, and of the modules,
// while the journal goes on. What is already in the backup that it continues is left
// out; if the journal is not the one that backup was made of, or lacks a part of
// what it holds, the error is of kind KindInvalid and says which, and nothing is
// written. The backup is there when Write has returned without an error.
func Write(ctx context.Context, w io.Writer, src Source, o Options) (*Manifest, error) {
	// The logs first: the modules of the deployments in them are stored by then.
	logs := src.Logs()
	if err := checkSince(ctx, src, logs, o.Since); err != nil {
		return nil, err
	}
	b := builder{o: o, manifest: newManifest()}
	for _, l := range logs {
		b.progress.Total += l.Batches - l.Deleted
	}
	if o.Since != nil {
		b.manifest.Previous = o.Since.ID
		for _, l := range o.Since.Logs {
			b.progress.Total -= min(l.Sequence, b.progress.Total)
		}
	}
	if err := b.begin(w); err != nil {
		return nil, err
	}
	for _, l := range logs {
		if err := b.log(ctx, src, l); err != nil {
			return nil, err
		}
	}
	if err := b.modules(); err != nil {
		return nil, err
	}
	return b.finish()
}

// checkSince holds a journal against the backup that is to be continued.
func checkSince(ctx context.Context, src Source, logs []journal.LogInfo, since *Manifest) error {
	if since == nil {
		return nil
	}
	if since.Piece {
		return errorf(journal.KindInvalid, "what is to be continued is a piece of a log and no backup")
	}
	for _, was := range since.Logs {
		i := slices.IndexFunc(logs, func(l journal.LogInfo) bool { return l.Name == was.Name })
		if i >= 0 && logs[i].Deleted >= was.Sequence {
			return errorf(journal.KindInvalid, "a retention has deleted the end of what the earlier backup holds of "+
				"log %s; make a complete backup", was.Name)
		}
		if i < 0 || logs[i].Batches < was.Sequence {
			return errorf(journal.KindInvalid, "log %s does not come as far as the earlier backup, which holds it up "+
				"to batch %d at position %d: it is another journal, or an older copy of it, or has lost its end; "+
				"make a complete backup", was.Name, was.Sequence, was.Position)
		}
		found := false
		r := journal.BatchRange{From: was.First, After: was.Sequence - 1, UpTo: was.Sequence}
		err := src.Batches(ctx, was.Name, r, func(b journal.Block) error {
			found = sha256.Sum256(b.Data) == was.Hash
			return nil
		})
		if err != nil {
			return err
		}
		if !found {
			return errorf(journal.KindInvalid, "batch %d of log %s is not the one that the earlier backup ends with: "+
				"that is a backup of another journal; make a complete backup", was.Sequence, was.Name)
		}
	}
	return nil
}

// WritePiece writes the batches of one log that hold positions above after, up to
// upTo (0: to the end). As batches are not cut, there may be a few more events at
// both ends.
func WritePiece(
	ctx context.Context, w io.Writer, src Source, log journal.LogName, after, upTo journal.Position, o Options,
) (*Manifest, error) {
	return writePiece(ctx, w, src, log, journal.BatchRange{From: after + 1}, o, func(b *journal.Batch) (in, more bool) {
		in = b.Next > after+1 || b.Events == 0 && b.First > after
		return in, upTo == 0 || b.First <= upTo
	})
}

// WriteBatches writes the first batches of a log, up to the one with a sequence (0: to
// the end).
func WriteBatches(
	ctx context.Context, w io.Writer, src Source, log journal.LogName, through uint64, o Options,
) (*Manifest, error) {
	return writePiece(ctx, w, src, log, journal.BatchRange{UpTo: through}, o,
		func(*journal.Batch) (in, more bool) { return true, true })
}

func writePiece(
	ctx context.Context, w io.Writer, src Source, log journal.LogName, r journal.BatchRange, o Options,
	wanted func(*journal.Batch) (in, more bool),
) (*Manifest, error) {
	b := builder{o: o, manifest: newManifest()}
	b.manifest.Piece = true
	if err := b.begin(w); err != nil {
		return nil, err
	}
	end := Log{Name: log}
	err := src.Batches(ctx, log, r, func(block journal.Block) error {
		batch, err := format.ReadBatch(block.Data, nil)
		if err != nil {
			return err
		}
		in, more := wanted(&batch)
		if !more {
			return errEnough
		}
		if !in {
			return nil
		}
		return b.batch(&end, &batch, block.Data)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	if end.Batches > 0 {
		b.manifest.Logs = append(b.manifest.Logs, end)
	}
	return b.finish()
}

// errEnough ends a scan that has all it wants.
var errEnough = errors.New("enough")

func newManifest() Manifest {
	return Manifest{Head: Head{ID: rand.Text(), Created: time.Now().UTC().Truncate(time.Second)}, Logs: []Log{},
		Modules: []Module{}}
}

// builder is a file that is being written.
type builder struct {
	w        *writer
	o        Options
	manifest Manifest
	progress Progress
}

func (b *builder) begin(w io.Writer) (err error) {
	if b.w, err = newWriter(w); err != nil {
		return err
	}
	return b.w.describe(recordHead, b.manifest.Head)
}

func (b *builder) finish() (*Manifest, error) {
	b.tell()
	if err := b.w.finish(&b.manifest); err != nil {
		return nil, err
	}
	return &b.manifest, nil
}

func (b *builder) tell() {
	b.progress.Bytes = b.w.size
	if b.o.Progress != nil {
		b.o.Progress(b.progress)
	}
}

// log writes what is new of a log, up to where info says that it ends.
func (b *builder) log(ctx context.Context, src Source, info journal.LogInfo) error {
	end := Log{Name: info.Name}
	if b.o.Since != nil {
		if was := b.o.Since.log(info.Name); was != nil {
			end = *was
		}
	}
	end.Batches, end.Events = 0, 0
	b.progress.Log = info.Name
	r := journal.BatchRange{From: end.First, After: end.Sequence, UpTo: info.Batches}
	err := src.Batches(ctx, info.Name, r, func(block journal.Block) error {
		batch, err := format.ReadBatch(block.Data, nil)
		if err == nil && (batch.Log != info.Name || batch.Sequence != block.Sequence) {
			err = errorf(journal.KindCorrupt, "the batch belongs to another place of the journal")
		}
		if err != nil {
			return &journal.Error{Op: "backup", Log: info.Name, Kind: journal.KindCorrupt,
				Detail: fmt.Sprintf("batch %d at position %d is damaged, so what comes behind it cannot be backed up",
					block.Sequence, block.First), Err: err}
		}
		if end.Sequence == 0 && batch.Sequence != info.Deleted+1 {
			return errorf(journal.KindInvalid, "log %s begins with batch %d and should with %d: a retention has "+
				"begun meanwhile, or its beginning is lost; try again", info.Name, batch.Sequence, info.Deleted+1)
		}
		return b.batch(&end, &batch, block.Data)
	})
	if err != nil {
		return err
	}
	if end.Sequence != info.Batches {
		return errorf(journal.KindCorrupt, "log %s ends with batch %d and should come to batch %d: a part of it is "+
			"missing", info.Name, end.Sequence, info.Batches)
	}
	b.manifest.Logs = append(b.manifest.Logs, end)
	return nil
}

// batch writes a batch that stands behind end. The first one of a piece may stand
// anywhere, and so may that of a log whose beginning a retention has deleted: the log
// itself says so, which restoring checks.
func (b *builder) batch(end *Log, batch *journal.Batch, data []byte) error {
	before := end.end()
	if end.Sequence > 0 {
		if why := batch.Follows(&before); why != "" {
			return errorf(journal.KindCorrupt, "log %s: %s", batch.Log, why)
		}
	}
	if err := b.w.record(recordBatch, data, nil); err != nil {
		return err
	}
	end.take(batch)
	b.manifest.Batches++
	b.progress.Batches++
	if b.progress.Batches%256 == 0 {
		b.tell()
	}
	return nil
}

// modules writes those that the earlier backups lack.
func (b *builder) modules() error {
	if b.o.Modules == nil {
		return nil
	}
	all, err := b.o.Modules()
	if err != nil {
		return err
	}
	for _, digest := range all {
		here := b.o.Since == nil ||
			!slices.ContainsFunc(b.o.Since.Modules, func(m Module) bool { return m.Digest == digest })
		if here {
			module, err := b.o.Module(digest)
			if err != nil {
				return err
			}
			if err := b.w.record(recordModule, digest[:], module); err != nil {
				return err
			}
		}
		b.manifest.Modules = append(b.manifest.Modules, Module{digest, here})
	}
	return nil
}

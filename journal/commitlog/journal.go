package commitlog

import (
	"context"
	"strconv"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/stored"
)

// Journal is an open journal. Its methods may be called concurrently.
//
// What it has in memory, and what it does, is in parts: the overlay with its queues, the committer, the completer and
// the indexer with their goroutines, the days of answers, and the requests of retentions to the indexer.
type Journal struct {
	storage journal.Storage
	opt     *Options
	space   *space
	// mended is the damage of the index, as Open found it; nil if there was none. Constant after it.
	mended *format.IndexDamage

	overlay *overlay
	answers *answers
	cuts    *typeCuts

	reads     gate // calls that read from the storage
	stopped   sync.WaitGroup
	stopCount context.CancelFunc // ends countLoop
	closeErr  error
	closeOnce sync.Once
}

// Open opens the journal that the storage holds. It completes the index from the log, which takes time in proportion
// to what the index lacks, and loads no event. An index that is damaged is set aside and rebuilt; see
// [Journal.IndexDamage]. A log that is damaged takes no commits, and the others work; see [Journal.Damage]. The journal
// closes the storage when it is closed. If Open fails, the caller closes it.
func Open(ctx context.Context, storage journal.Storage, o Options) (*Journal, error) {
	o = o.withDefaults()
	if o.Codec != journal.CodecS2 && o.Codec != journal.CodecNone {
		return nil, &journal.Error{Op: "open", Kind: journal.KindInvalid, Detail: "there is no codec " +
			strconv.Quote(string(o.Codec)) + "; there are s2 and none"}
	}
	j := &Journal{
		storage: storage, opt: &o, space: newSpace(storage.Space), overlay: newOverlay(&o), cuts: &typeCuts{},
		answers: &answers{index: storage.Index, window: o.AnswerWindow, clock: o.Clock},
	}
	names, err := storage.Log.Logs(ctx)
	if err != nil {
		return nil, &journal.Error{Op: "open", Kind: stored.StorageKind(err), Err: err}
	}
	for _, name := range names {
		last, ok, err := storage.Log.Last(ctx, name)
		if err := j.overlay.damaged.add(name, err); err != nil {
			return nil, &journal.Error{Op: "open", Log: name, Kind: stored.StorageKind(err), Err: err}
		}
		if !ok {
			continue
		}
		s, err := openLog(last)
		if err := j.overlay.damaged.add(name, err); err != nil {
			return nil, err
		}
		j.overlay.logs[name] = s
	}
	if err := j.openIndex(ctx); err != nil {
		return nil, err
	}
	if err := j.findStamps(ctx); err != nil {
		return nil, &journal.Error{Op: "open", Kind: stored.StorageKind(err), Err: err}
	}
	if err := j.checkQuarantined(ctx, names); err != nil {
		return nil, &journal.Error{Op: "open", Kind: stored.StorageKind(err), Err: err}
	}
	if storage.Count != nil {
		j.overlay.stats.Storage.Written = storage.Count().Written
	}
	j.start(ctx)
	return j, nil
}

// start starts the goroutines that Close waits for.
func (j *Journal) start(ctx context.Context) {
	// Two groups between committer and completer let the next sync run while the
	// senders of the last one are told. The indexer may be far behind, as
	// MaxPending… bounds what it holds up; it shall not hold up answers.
	written, told := make(chan *group, 2), make(chan *group, 4096)
	commit := &committer{log: j.storage.Log, overlay: j.overlay, maker: format.BatchMaker{Codec: j.opt.Codec},
		out: written}
	complete := &completer{overlay: j.overlay, in: written, out: told}
	index := &indexer{index: j.storage.Index, overlay: j.overlay, answers: j.answers, cuts: j.cuts,
		types: newTypeCounter(context.Background(), j.storage.Index), in: told}
	j.stopped.Go(commit.run)
	j.stopped.Go(complete.run)
	j.stopped.Go(index.run)
	counting, stop := context.WithCancel(context.WithoutCancel(ctx))
	j.stopCount = stop
	if j.uncounted() {
		j.stopped.Go(func() { j.countLoop(counting) })
	}
}

// Close writes what was handed in, completes the index, waits for running reads and closes the storage. If ctx ends
// first, closing goes on and the error is KindCanceled; call Close again to wait. Later calls of other methods fail
// with [journal.KindClosed].
func (j *Journal) Close(ctx context.Context) error {
	j.overlay.mu.Lock()
	j.overlay.closing = true
	j.overlay.mu.Unlock()
	j.stopCount()
	j.overlay.signal()
	gone := make(chan struct{})
	go func() {
		j.stopped.Wait()
		j.reads.close()
		j.closeOnce.Do(func() { j.closeErr = j.storage.Close() })
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		return &journal.Error{Op: "close", Kind: journal.KindCanceled, Err: ctx.Err()}
	}
	if j.closeErr != nil {
		return &journal.Error{Op: "close", Kind: stored.StorageKind(j.closeErr), Err: j.closeErr}
	}
	return nil
}

// Failed is closed when the journal has failed; Err says why.
func (j *Journal) Failed() <-chan struct{} { return j.overlay.failed }

// Err returns why the journal failed, or nil while it has not.
func (j *Journal) Err() error { return j.overlay.err() }

// Head is the position of the last event on disk, 0 if the log has none.
func (j *Journal) Head(log journal.LogName) journal.Position {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	if s := j.overlay.logs[log]; s != nil {
		return s.head
	}
	return 0
}

// First is the position of the first event that a log still has, or will have: 1 if no
// retention has deleted any.
func (j *Journal) First(log journal.LogName) journal.Position {
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	if s := j.overlay.logs[log]; s != nil {
		return max(s.trimmed.Position, 1)
	}
	return 1
}

// wake wakes the goroutine that reads from a channel of capacity 1, if it is not about to look by itself.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

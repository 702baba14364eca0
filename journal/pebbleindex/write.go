package pebbleindex

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// maxKey is the greatest length of a key.
const maxKey = 1 << 10

// What a batch has beside keys and values, in bytes.
const (
	batchHeader  = 12
	pairOverhead = 1 + 2 + 5 // kind and lengths
)

func checkKey(key []byte) error {
	if len(key) == 0 || len(key) > maxKey {
		return &journal.Error{Op: "index", Kind: journal.KindInvalid,
			Detail: fmt.Sprintf("a key has %d bytes; it has 1 to %d", len(key), maxKey)}
	}
	return nil
}

// write has the present database do what fill puts into a batch, and then what follows.
func (s *Store) write(size int, fill func(*pebble.Batch) error, then func(*pebble.DB) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	in, err := s.writable()
	if err != nil {
		return err
	}
	if err := in.use(); err != nil {
		return err
	}
	defer in.leave()
	// Not where it is applied: a caller who does not wait any more may change what it handed in.
	b := in.db.NewBatchWithSize(size)
	if err := fill(b); err != nil {
		return classify("index", errors.Join(err, b.Close()))
	}
	return classify("index", in.do(func(db *pebble.DB) error {
		defer b.Close()
		if err := db.Apply(b, pebble.NoSync); err != nil {
			return err
		}
		return then(db)
	}))
}

func nothing(*pebble.DB) error { return nil }

// Update implements [journal.IndexStore]. It waits while too much waits to be written. A crash leaves the
// beginning of all updates, each whole or not at all.
func (s *Store) Update(_ context.Context, pairs []journal.Pair) error {
	if len(pairs) == 0 {
		return nil
	}
	size := 0
	for i := range pairs {
		if err := checkKey(pairs[i].Key); err != nil {
			return err
		}
		size += len(pairs[i].Key) + len(pairs[i].Value) + pairOverhead
	}
	err := s.write(size+batchHeader, func(b *pebble.Batch) error {
		for i := range pairs {
			if err := b.Set(pairs[i].Key, pairs[i].Value, nil); err != nil {
				return err
			}
		}
		return nil
	}, nothing)
	if err == nil {
		s.counts.update(pairs)
	}
	return err
}

// Delete implements [journal.IndexStore]. All that is in memory is written to a table.
func (s *Store) Delete(_ context.Context, keys [][]byte) error {
	if len(keys) == 0 {
		return nil
	}
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return err
		}
	}
	err := s.write(0, func(b *pebble.Batch) error {
		for _, key := range keys {
			if err := b.Delete(key, nil); err != nil {
				return err
			}
		}
		return nil
	}, (*pebble.DB).Flush)
	if err == nil {
		s.counts.removed(keys)
	}
	return err
}

// DeleteRange implements [journal.IndexStore].
func (s *Store) DeleteRange(_ context.Context, from, to []byte) error {
	if bytes.Compare(from, to) >= 0 {
		return nil
	}
	err := s.write(0, func(b *pebble.Batch) error { return b.DeleteRange(from, to, nil) }, nothing)
	if err == nil {
		s.counts.removedRange(from, to)
	}
	return err
}

// Compact gives the space of what was deleted back, as far as there is room to do so. A compaction of Pebble's own that
// fails meanwhile ends it: Pebble would let it wait for the keys of that one.
func (s *Store) Compact(ctx context.Context) error {
	in, err := s.writable()
	if err == nil {
		err = s.opt.Room(s.opt.table)
	}
	if err != nil {
		return classify("compact", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer in.whenTroubled(cancel)()
	last := bytes.Repeat([]byte{0xff}, maxKey+1)
	err = in.do(func(db *pebble.DB) error { return db.Compact(ctx, []byte{0}, last, false) })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return classify("compact", err)
}

// Clear implements [journal.IndexStore].
func (s *Store) Clear(context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	in, err := s.writable()
	if err == nil {
		err = in.failure()
	}
	if err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return classify("clear", err)
	}
	in.retire() // at once if nobody uses it, so that its tables in memory go before there are new ones
	s.closings.Go(func() {
		<-in.closed
		if err := s.opt.fs.RemoveAll(in.dir); err != nil { // the next Open tries again
			s.opt.Logger.Warn("the files of an index that was cleared cannot be removed", "error", err)
		}
	})
	return nil
}

// begin makes an empty database the present one. The caller holds writing.
func (s *Store) begin() error {
	in, err := openInstance(s.path(s.next), &s.opt, s.cache)
	if err != nil {
		return err
	}
	s.next++
	if err := s.syncDirs(); err != nil {
		in.retire()
		<-in.closed
		return err
	}
	s.mu.Lock()
	s.now = in
	s.mu.Unlock()
	s.counts.reset()
	return nil
}

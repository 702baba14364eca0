package journaltest

import (
	"context"
	"errors"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Faulty makes operations of log and index fail on demand. Of those that write, each second failure comes after the
// write was done: nobody can know. Its zero value lets all succeed.
type Faulty struct {
	mu         sync.Mutex // guards all below
	operations int
	failAt     int
}

// FailAt makes the n-th operation from now fail, and every one after it; 0 lets all
// succeed.
func (f *Faulty) FailAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.operations, f.failAt = 0, n
}

// operation counts one. It fails if err is not nil; done says that it is carried out
// all the same.
func (f *Faulty) operation() (done bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.operations++
	if f.failAt > 0 && f.operations >= f.failAt {
		return f.operations%2 == 0, ErrInjected
	}
	return true, nil
}

// write carries out an operation that writes.
func (f *Faulty) write(do func() error) error {
	done, failed := f.operation()
	if !done {
		return failed
	}
	return errors.Join(do(), failed)
}

// Wrap returns a storage whose operations fail when f says so.
func (f *Faulty) Wrap(s journal.Storage) journal.Storage {
	s.Log, s.Index = faultyLog{s.Log, f}, faultyIndex{s.Index, f}
	return s
}

type faultyLog struct {
	log journal.LogStore
	f   *Faulty
}

func (l faultyLog) Append(ctx context.Context, blocks []journal.Block) error {
	return l.f.write(func() error { return l.log.Append(ctx, blocks) })
}

func (l faultyLog) Blocks(
	ctx context.Context, log journal.LogName, from journal.Position, yield func(journal.Block) error,
) error {
	if _, err := l.f.operation(); err != nil {
		return err
	}
	return l.log.Blocks(ctx, log, from, yield)
}

func (l faultyLog) Last(ctx context.Context, log journal.LogName) (journal.Block, bool, error) {
	if _, err := l.f.operation(); err != nil {
		return journal.Block{}, false, err
	}
	return l.log.Last(ctx, log)
}

func (l faultyLog) Trim(ctx context.Context, log journal.LogName, below uint64) (more bool, err error) {
	err = l.f.write(func() (err error) { more, err = l.log.Trim(ctx, log, below); return err })
	return more, err
}

func (l faultyLog) Logs(ctx context.Context) ([]journal.LogName, error) {
	if _, err := l.f.operation(); err != nil {
		return nil, err
	}
	return l.log.Logs(ctx)
}

type faultyIndex struct {
	index journal.IndexStore
	f     *Faulty
}

func (x faultyIndex) Update(ctx context.Context, pairs []journal.Pair) error {
	return x.f.write(func() error { return x.index.Update(ctx, pairs) })
}

func (x faultyIndex) Delete(ctx context.Context, keys [][]byte) error {
	return x.f.write(func() error { return x.index.Delete(ctx, keys) })
}

func (x faultyIndex) DeleteRange(ctx context.Context, from, to []byte) error {
	return x.f.write(func() error { return x.index.DeleteRange(ctx, from, to) })
}

func (x faultyIndex) Clear(ctx context.Context) error {
	return x.f.write(func() error { return x.index.Clear(ctx) })
}

func (x faultyIndex) SetAside(ctx context.Context) error {
	return x.f.write(func() error { return x.index.SetAside(ctx) })
}

func (x faultyIndex) Get(ctx context.Context, key []byte) ([]byte, bool, error) {
	if _, err := x.f.operation(); err != nil {
		return nil, false, err
	}
	return x.index.Get(ctx, key)
}

func (x faultyIndex) Has(ctx context.Context, key []byte) (bool, error) {
	if _, err := x.f.operation(); err != nil {
		return false, err
	}
	return x.index.Has(ctx, key)
}

func (x faultyIndex) Scan(ctx context.Context, prefix, from []byte, yield func(key, value []byte) error) error {
	if _, err := x.f.operation(); err != nil {
		return err
	}
	return x.index.Scan(ctx, prefix, from, yield)
}

func (x faultyIndex) Last(ctx context.Context, prefix []byte) ([]byte, bool, error) {
	if _, err := x.f.operation(); err != nil {
		return nil, false, err
	}
	return x.index.Last(ctx, prefix)
}

package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/badgerlog"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/pebbleindex"
)

// purse is a memory with a limit.
type purse struct {
	mu          sync.Mutex
	held, limit int64
	taken       int // calls of Take that took something
}

var errPurse = errors.New("the purse is empty")

func (p *purse) Take(log, index int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held+log+index > p.limit {
		return errPurse
	}
	p.held += log + index
	p.taken++
	return nil
}

func (p *purse) Give(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held -= bytes
}

func (p *purse) want(t *testing.T, when string, held int64) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != held {
		t.Errorf("%s: %d bytes are held, not %d", when, p.held, held)
	}
}

// The memory of both stores is taken before they are opened, once, and given back when they are closed.
func TestMemoryIsTakenAndGivenBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := badgerlog.MemoryOf(dir, badgerlog.Options{})
	const index = 16 << 20
	p := &purse{limit: log + index - 1}
	o := Options{IndexCacheBytes: index, Memory: p}
	if _, err := Open(dir, o); !errors.Is(err, errPurse) {
		t.Errorf("with too little memory: %v", err)
	}
	p.want(t, "after it was refused", 0)
	if _, err := os.Stat(filepath.Join(dir, "log")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the log was opened without memory: %v", err)
	}
	p.limit++
	for range 2 {
		e := openStorage(t, dir, o)
		p.want(t, "open", log+index)
		if _, err := Open(dir, o); journal.KindOf(err) != journal.KindLocked {
			t.Errorf("opened twice: %v", err)
		}
		p.want(t, "after another opening was refused", log+index)
		if err := errors.Join(e.Close(), e.Close()); err != nil {
			t.Fatal(err)
		}
		p.want(t, "closed", 0)
	}
	note := filepath.Join(dir, "index", "00000001", "DAMAGED") // as package pebbleindex does when it finds damage
	if err := os.WriteFile(note, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := openStorage(t, dir, o)
	if _, err := os.Stat(note); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the damaged index was not set aside: %v", err)
	}
	p.want(t, "with an index in the place of a damaged one", log+index)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	p.want(t, "closed", 0)
}

// An append that fails, and openings that do, leave nothing behind that is counted twice.
func TestMemoryOfAJournalThatFailed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := t.TempDir()
	p := &purse{limit: 1 << 30}
	o := Options{IndexCacheBytes: 8 << 20, ValueFileBytes: 4 << 20, ReserveBytes: -1, Memory: p}
	e := openStorage(t, dir, o)
	held := p.held
	j, err := commitlog.Open(ctx, e, commitlog.Options{Codec: journal.CodecNone})
	if err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(dir, "log", "000002.vlog") // the next file
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := 0; err == nil && i < 20; i++ {
		c := journaltest.Commit("bank", fmt.Sprint("k", i), 0, fmt.Sprint("c", i), 1)
		c.Events[0].Data = make([]byte, 1<<20)
		_, err = journaltest.Append(j, c)
	}
	if err == nil || j.Err() == nil {
		t.Fatalf("the journal has not failed: %v", err)
	}
	p.want(t, "failed", held)
	_ = j.Close(ctx) // it has failed
	p.want(t, "closed", 0)
	for range 3 {
		if _, err := Open(dir, o); err == nil {
			t.Fatal("it opens with a directory in the way")
		}
		p.want(t, "not opened", 0)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	e = openStorage(t, dir, o)
	p.want(t, "open again", held)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	p.want(t, "closed", 0)
}

// The memory of a store that could not be closed stays taken, and the next one takes its own.
func TestMemoryOfAnAbandonedStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := &purse{limit: 1 << 30}
	log, index := badgerlog.MemoryOf(dir, badgerlog.Options{}), int64(pebbleindex.DefaultMemory)
	d := openDirectory(t, dir, Options{Memory: p})
	lost := int64(0)
	for _, lose := range []struct {
		what  string
		store func()
		bytes int64
	}{
		{"the index", d.indexOptions().Abandoned, index}, {"another database of it", d.indexOptions().Abandoned, 0},
		{"the log", d.logOptions().Abandoned, log},
	} {
		lose.store()
		lost += lose.bytes
		if d.memory.held != log+index-lost {
			t.Errorf("without %s, %d bytes are to be given back, not %d", lose.what, d.memory.held, log+index-lost)
		}
	}
	if err := d.memory.again(); err != nil { // for an index in the place of that one
		t.Fatal(err)
	}
	p.want(t, "with one index more", log+index+index)
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	p.want(t, "closed", log+index)
	e := openStorage(t, dir, Options{Memory: p})
	p.want(t, "open again", 2*(log+index))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	p.want(t, "closed again", log+index)
	p.limit = 2*(log+index) - 1
	if _, err := Open(dir, Options{Memory: p}); !errors.Is(err, errPurse) {
		t.Errorf("with too little memory beside what is lost: %v", err)
	}
}

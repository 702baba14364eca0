// Package journaltest is for tests of the journal and of its users: a storage in memory that fails and crashes on
// demand, and the suite that every storage has to pass.
package journaltest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sort"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// ErrInjected is the error of an operation that was told to fail.
var ErrInjected = errors.New("journaltest: injected fault")

// Memory is a storage in memory. Its methods may be called concurrently.
type Memory struct {
	mu         sync.Mutex // guards all below
	blocks     map[journal.LogName][]journal.Block
	index      map[string][]byte
	keys       []string // of index, sorted; nil when out of date
	operations int
	failAt     int
	onAppend   func([]journal.Block)
	closed     bool
	full       bool
	synced     map[string][]byte   // index as the latest Delete left it
	unsynced   []map[string][]byte // index updates since, oldest first, that a crash may lose
}

// NewMemory returns an empty one.
func NewMemory() *Memory {
	return &Memory{blocks: map[journal.LogName][]journal.Block{}, index: map[string][]byte{}}
}

// Storage is the memory as a journal uses it.
func (m *Memory) Storage() journal.Storage {
	return journal.Storage{Log: m.Log(), Index: m.Index(), Close: m.Close, Space: m.Space}
}

// FailAt makes the n-th operation from now fail, and every one after it; 0 lets
// all succeed. A failed append may or may not have stored its blocks; here it has not.
func (m *Memory) FailAt(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.operations, m.failAt = 0, n
}

// Fill makes the disk full, as the storage sees it coming, or gives it room again.
// What is written all the same is stored.
func (m *Memory) Fill(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = full
}

// Space is that of [journal.Storage]. It is no operation that fails.
func (m *Memory) Space() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return &journal.Error{Op: "space", Kind: journal.KindFull, Detail: "journaltest: the disk is full"}
	}
	return nil
}

// Operations counts the operations since FailAt.
func (m *Memory) Operations() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.operations
}

// OnAppend has f called before each append is stored, on the appender's
// goroutine; it may block.
func (m *Memory) OnAppend(f func([]journal.Block)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onAppend = f
}

// CrashClone returns what a machine would find after losing power now: every
// synced block, and of the index all but the last lost updates.
func (m *Memory) CrashClone(lost int) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemory()
	for log, blocks := range m.blocks {
		for _, b := range blocks {
			b.Data = bytes.Clone(b.Data)
			c.blocks[log] = append(c.blocks[log], b)
		}
	}
	for k, v := range m.synced {
		c.index[k] = bytes.Clone(v)
	}
	c.synced = maps.Clone(m.synced)
	for _, update := range m.unsynced[:max(0, len(m.unsynced)-lost)] {
		for k, v := range update {
			if c.index[k] = bytes.Clone(v); v == nil {
				delete(c.index, k)
			}
		}
		c.unsynced = append(c.unsynced, update)
	}
	return c
}

// Corrupt flips one bit of a stored block's data.
func (m *Memory) Corrupt(log journal.LogName, block, bit int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data := m.blocks[log][block].Data
	data[bit/8%len(data)] ^= 1 << (bit % 8)
}

// Lose removes a stored block, as a disk that tells untruths would.
func (m *Memory) Lose(log journal.LogName, block int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocks[log] = slices.Delete(m.blocks[log], block, block+1)
	if len(m.blocks[log]) == 0 {
		delete(m.blocks, log)
	}
}

// operation counts one and says whether it fails. The caller holds mu.
func (m *Memory) operation() error {
	if m.closed {
		return errors.New("journaltest: storage is closed")
	}
	m.operations++
	if m.failAt > 0 && m.operations >= m.failAt {
		return ErrInjected
	}
	return nil
}

// Log is that of [journal.Storage].
func (m *Memory) Log() journal.LogStore { return (*memoryLog)(m) }

// Index is that of [journal.Storage].
func (m *Memory) Index() journal.IndexStore { return (*memoryIndex)(m) }

// Close is that of [journal.Storage]: later operations fail.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

type memoryLog Memory

func (l *memoryLog) Append(_ context.Context, blocks []journal.Block) error {
	m := (*Memory)(l)
	m.mu.Lock()
	hook := m.onAppend
	m.mu.Unlock()
	if hook != nil {
		hook(blocks)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.operation(); err != nil {
		return err
	}
	for _, b := range blocks {
		b.Data = bytes.Clone(b.Data)
		m.blocks[b.Log] = append(m.blocks[b.Log], b)
	}
	return nil
}

func (l *memoryLog) Blocks(
	ctx context.Context, log journal.LogName, from journal.Position, yield func(journal.Block) error,
) error {
	m := (*Memory)(l)
	m.mu.Lock()
	if err := m.operation(); err != nil {
		m.mu.Unlock()
		return err
	}
	all := m.blocks[log]
	start := sort.Search(len(all), func(i int) bool { return all[i].First > from }) - 1
	for start > 0 && all[start-1].First == all[start].First {
		start--
	}
	all = slices.Clone(all[max(start, 0):])
	m.mu.Unlock()
	for _, b := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(b); err != nil {
			return err
		}
	}
	return nil
}

func (l *memoryLog) Last(_ context.Context, log journal.LogName) (journal.Block, bool, error) {
	m := (*Memory)(l)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.operation(); err != nil {
		return journal.Block{}, false, err
	}
	all := m.blocks[log]
	if len(all) == 0 {
		return journal.Block{}, false, nil
	}
	b := all[len(all)-1]
	b.Data = bytes.Clone(b.Data)
	return b, true, nil
}

// trimAtOnce is small, so that tests get between.
const trimAtOnce = 3

func (l *memoryLog) Trim(_ context.Context, log journal.LogName, below uint64) (more bool, err error) {
	m := (*Memory)(l)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.operation(); err != nil {
		return false, err
	}
	all := m.blocks[log]
	n := 0
	for n < len(all)-1 && all[n].Sequence < below && n < trimAtOnce {
		n++
	}
	m.blocks[log] = slices.Clone(all[n:]) // readers may have the old one
	return n < len(all)-1 && all[n].Sequence < below, nil
}

func (l *memoryLog) Logs(context.Context) ([]journal.LogName, error) {
	m := (*Memory)(l)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.operation(); err != nil {
		return nil, err
	}
	var names []journal.LogName
	for name := range m.blocks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

type memoryIndex Memory

func (x *memoryIndex) Update(_ context.Context, pairs []journal.Pair) error {
	m := (*Memory)(x)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.operation(); err != nil {
		return err
	}
	update := map[string][]byte{}
	for _, p := range pairs {
		v := append([]byte{}, p.Value...)
		if _, there := m.index[string(p.Key)]; !there {
			m.keys = nil
		}
		m.index[string(p.Key)] = v
		update[string(p.Key)] = v
	}
	m.unsynced = append(m.unsynced, update)
	return nil
}

func (x *memoryIndex) Delete(_ context.Context, keys [][]byte) error {
	m := (*Memory)(x)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.operation(); err != nil {
		return err
	}
	for _, k := range keys {
		delete(m.index, string(k))
	}
	m.keys, m.synced, m.unsynced = nil, maps.Clone(m.index), nil
	return nil
}

func (x *memoryIndex) DeleteRange(_ context.Context, from, to []byte) error {
	m := (*Memory)(x)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.operation(); err != nil {
		return err
	}
	update := map[string][]byte{}
	for k := range m.index {
		if k >= string(from) && k < string(to) {
			update[k] = nil // which is a deletion
			delete(m.index, k)
		}
	}
	m.keys = nil
	m.unsynced = append(m.unsynced, update)
	return nil
}

func (x *memoryIndex) Get(_ context.Context, key []byte) ([]byte, bool, error) {
	m := (*Memory)(x)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.operation(); err != nil {
		return nil, false, err
	}
	v, ok := m.index[string(key)]
	return bytes.Clone(v), ok, nil
}

// sorted returns the keys in order. The caller holds mu.
func (m *Memory) sorted() []string {
	if m.keys == nil {
		m.keys = make([]string, 0, len(m.index))
		for k := range m.index {
			m.keys = append(m.keys, k)
		}
		slices.Sort(m.keys)
	}
	return m.keys
}

func (x *memoryIndex) Has(ctx context.Context, key []byte) (bool, error) {
	_, ok, err := x.Get(ctx, key)
	return ok, err
}

func (x *memoryIndex) Scan(_ context.Context, prefix, from []byte, yield func(key, value []byte) error) error {
	m := (*Memory)(x)
	m.mu.Lock()
	if err := m.operation(); err != nil {
		m.mu.Unlock()
		return err
	}
	keys := m.sorted()
	start := sort.SearchStrings(keys, string(max(string(prefix), string(from))))
	var found []journal.Pair
	for _, k := range keys[start:] {
		if !bytes.HasPrefix([]byte(k), prefix) {
			break
		}
		found = append(found, journal.Pair{Key: []byte(k), Value: bytes.Clone(m.index[k])})
	}
	m.mu.Unlock()
	for _, p := range found {
		if err := yield(p.Key, p.Value); err != nil {
			return err
		}
	}
	return nil
}

func (x *memoryIndex) Last(_ context.Context, prefix []byte) ([]byte, bool, error) {
	m := (*Memory)(x)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.operation(); err != nil {
		return nil, false, err
	}
	keys := m.sorted()
	after := sort.Search(len(keys), func(i int) bool {
		return keys[i] >= string(prefix) && !bytes.HasPrefix([]byte(keys[i]), prefix)
	})
	if after == 0 || !bytes.HasPrefix([]byte(keys[after-1]), prefix) {
		return nil, false, nil
	}
	return []byte(keys[after-1]), true, nil
}

func (x *memoryIndex) Clear(context.Context) error {
	m := (*Memory)(x)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.operation(); err != nil {
		return err
	}
	m.index, m.keys, m.synced, m.unsynced = map[string][]byte{}, nil, nil, nil
	return nil
}

// SetAside is Clear: nobody looks into the damage of what is in memory.
func (x *memoryIndex) SetAside(ctx context.Context) error { return x.Clear(ctx) }

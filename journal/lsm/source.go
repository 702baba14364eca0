package lsm

import "bytes"

// source walks through the entries of a piece or a run, in either direction.
type source struct {
	piece *piece // or
	run   *run
	// prefix is that of the keys that are wanted, going forwards: a block behind them is not read to see that.
	prefix []byte
	cache  *cache // for the block that it begins with

	index int // of the entry in its piece or block
	table int
	block int
	read  *block // the block, nil if none is read

	entry entry // the current one
	valid bool
}

func pieceSources(oldestFirst []*piece) []*source {
	sources := make([]*source, len(oldestFirst))
	for i, p := range oldestFirst {
		sources[len(sources)-1-i] = &source{piece: p}
	}
	return sources
}

// close gives the source's memory back. Its entry is not valid any more.
func (s *source) close() {
	s.read.release()
	s.read, s.valid = nil, false
}

// seek goes to the first entry whose key is not below key.
func (s *source) seek(key []byte) error {
	if s.piece != nil {
		s.index = s.piece.search(key)
		return s.load()
	}
	s.table = s.run.search(key)
	if s.table == len(s.run.tables) {
		s.valid = false
		return nil
	}
	m, err := s.run.tables[s.table].meta()
	if err != nil {
		return err
	}
	if err := s.open(s.table, max(0, m.search(key)), s.cache); err != nil {
		return err
	}
	s.index = s.read.search(key)
	return s.load()
}

// seekBelow goes to the last entry whose key is below key.
func (s *source) seekBelow(key []byte) error {
	if s.piece != nil {
		s.index = s.piece.search(key) - 1
		return s.load()
	}
	s.table = min(s.run.search(key), len(s.run.tables)-1)
	m, err := s.run.tables[s.table].meta()
	if err != nil {
		return err
	}
	if err := s.open(s.table, max(0, m.search(key)), s.cache); err != nil {
		return err
	}
	s.index = s.read.search(key) - 1
	return s.load()
}

// next goes to the entry behind the current one.
func (s *source) next() error {
	s.index++
	return s.load()
}

// previous goes to the entry in front of the current one.
func (s *source) previous() error {
	s.index--
	return s.load()
}

// load makes the entry at index the current one, in the block before or behind if index is
// outside of this one. There is none outside of everything.
func (s *source) load() error {
	s.valid = false
	if s.piece != nil {
		if s.valid = s.index >= 0 && s.index < len(s.piece.refs); s.valid {
			s.entry = s.piece.entry(s.index)
		}
		return nil
	}
	for s.index < 0 || s.index >= len(s.read.at) {
		table, block := s.table, s.block-1
		if s.index >= 0 {
			block = s.block + 1
		}
		if block < 0 {
			if table--; table < 0 {
				return nil
			}
		}
		m, err := s.run.tables[table].meta()
		if err != nil {
			return err
		}
		var first []byte // key of the block behind
		switch {
		case block < 0:
			block = m.blocks() - 1
		case block < m.blocks():
			first = m.key(block)
		default:
			if table, block = table+1, 0; table == len(s.run.tables) {
				return nil
			}
			first = s.run.tables[table].first
		}
		back := s.index < 0
		if !back && !bytes.HasPrefix(first, s.prefix) {
			return nil
		}
		if err := s.open(table, block, nil); err != nil {
			return err
		}
		if s.index = 0; back {
			s.index = len(s.read.at) - 1
		}
	}
	s.entry, s.valid = s.read.entry(s.index), true
	return nil
}

// open goes to a block, which c may have. The current entry is not valid any more.
func (s *source) open(table, number int, c *cache) (err error) {
	s.close()
	s.table, s.block = table, number
	s.read, err = c.read(s.run.tables[table], number)
	return err
}

// merge walks through several sources at once. Of entries of the same key the first source's, the
// newest, is yielded, and the others are not.
type merge struct {
	sources []*source // newest first
	heap    []int     // indices of sources with a valid entry
	reverse bool      // from the greatest key to the least
}

// newMerge merges sources, newest first.
func newMerge(sources []*source) *merge { return &merge{sources: sources} }

func (m *merge) close() {
	for _, s := range m.sources {
		s.close()
	}
}

func (m *merge) first() error { return m.start(func(s *source) error { return s.seek(nil) }) }

func (m *merge) seek(key []byte) error {
	return m.start(func(s *source) error { return s.seek(key) })
}

// seekBelow begins with the greatest key below key and goes to lesser ones from there.
func (m *merge) seekBelow(key []byte) error {
	m.reverse = true
	return m.start(func(s *source) error { return s.seekBelow(key) })
}

func (m *merge) start(begin func(*source) error) error {
	m.heap = m.heap[:0]
	for i, s := range m.sources {
		if err := begin(s); err != nil {
			return err
		}
		if s.valid {
			m.heap = append(m.heap, i)
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
	return nil
}

// top is the source with the current entry, nil at the end.
func (m *merge) top() *source {
	if len(m.heap) == 0 {
		return nil
	}
	return m.sources[m.heap[0]]
}

// next goes to the next key. What top yielded is not valid any more.
func (m *merge) next() error {
	// The sources that stand behind the top with the same key are passed first: they
	// compare with it, so it has to stay.
	for len(m.heap) > 1 {
		i := 1
		if len(m.heap) > 2 && m.less(2, 1) {
			i = 2
		}
		if !bytes.Equal(m.sources[m.heap[i]].entry.key, m.sources[m.heap[0]].entry.key) {
			break
		}
		if err := m.advance(i); err != nil {
			return err
		}
	}
	return m.advance(0)
}

func (m *merge) advance(i int) error {
	s := m.sources[m.heap[i]]
	step := s.next
	if m.reverse {
		step = s.previous
	}
	if err := step(); err != nil {
		return err
	}
	if !s.valid {
		last := len(m.heap) - 1
		m.heap[i] = m.heap[last]
		m.heap = m.heap[:last]
		if i == last {
			return nil
		}
	}
	m.down(i)
	return nil
}

func (m *merge) less(i, j int) bool {
	a, b := m.heap[i], m.heap[j]
	c := bytes.Compare(m.sources[a].entry.key, m.sources[b].entry.key)
	if m.reverse {
		c = -c
	}
	return c < 0 || c == 0 && a < b
}

func (m *merge) down(i int) {
	for {
		least := 2*i + 1
		if least >= len(m.heap) {
			return
		}
		if right := least + 1; right < len(m.heap) && m.less(right, least) {
			least = right
		}
		if !m.less(least, i) {
			return
		}
		m.heap[i], m.heap[least] = m.heap[least], m.heap[i]
		i = least
	}
}

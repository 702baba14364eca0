package lsm

import (
	"bytes"
	"context"
	"slices"
)

// Get implements [journal.IndexStore].
func (s *Store) Get(_ context.Context, key []byte) (value []byte, ok bool, err error) {
	err = s.look(key, func(e entry) { value, ok = bytes.Clone(e.value), true })
	return value, ok, err
}

// Has implements [journal.IndexStore].
func (s *Store) Has(_ context.Context, key []byte) (ok bool, err error) {
	err = s.look(key, func(entry) { ok = true })
	return ok, err
}

// look calls found with the entry of a key, a view, if there is one.
func (s *Store) look(key []byte, found func(entry)) error {
	v, err := s.acquire()
	if err != nil {
		return err
	}
	defer s.release(v)
	_, hash := hashes(key, s.opt.Group)
	tell := func(e entry) {
		if !e.deleted {
			found(e)
		}
	}
	for p := range v.pieces() {
		if !p.filter.mayHave(hash) {
			continue
		}
		if i := p.search(key); i < len(p.refs) && bytes.Equal(p.key(i), key) {
			tell(p.entry(i))
			return nil
		}
	}
	for _, r := range v.runs {
		if ok, err := r.get(key, hash, s.cache, tell); ok || err != nil {
			return s.readError(err)
		}
	}
	return nil
}

// pieces yields the pieces in memory, the newest first.
func (v *version) pieces() func(yield func(*piece) bool) {
	return func(yield func(*piece) bool) {
		for i := len(v.frozen); i >= 0; i-- {
			pieces := v.active
			if i < len(v.frozen) {
				pieces = v.frozen[i]
			}
			for _, p := range slices.Backward(pieces) {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// sources are those of all that may have keys that start with prefix, the newest first.
func (s *Store) sources(v *version, prefix []byte) (sources []*source, err error) {
	group := s.opt.Group(prefix)
	var hash uint64
	if group > 0 {
		hash = hashOf(prefix[:group])
	}
	for p := range v.pieces() {
		if group == 0 || p.filter.mayHave(hash) {
			sources = append(sources, &source{piece: p})
		}
	}
	for _, r := range v.runs {
		has := true
		if group > 0 {
			if has, err = r.mayHave(prefix, hash); err != nil {
				return nil, err
			}
		}
		if has {
			sources = append(sources, &source{run: r, prefix: prefix, cache: s.cache})
		}
	}
	return sources, nil
}

// walk yields the entries whose keys start with prefix, from the one that begin goes to, until yield
// says that it is enough.
func (s *Store) walk(ctx context.Context, prefix []byte, begin func(*merge) error, yield func(entry) (more bool)) error {
	v, err := s.acquire()
	if err != nil {
		return err
	}
	defer s.release(v)
	sources, err := s.sources(v, prefix)
	if err != nil {
		return s.readError(err)
	}
	m := newMerge(sources)
	defer m.close()
	if err := begin(m); err != nil {
		return s.readError(err)
	}
	for at := m.top(); at != nil && bytes.HasPrefix(at.entry.key, prefix); at = m.top() {
		if err := ctx.Err(); err != nil {
			return classify("index", err)
		}
		if !at.entry.deleted && !yield(at.entry) {
			return nil
		}
		if err := m.next(); err != nil {
			return s.readError(err)
		}
	}
	return nil
}

// Scan implements [journal.IndexStore]. It yields what there was when it was called.
func (s *Store) Scan(ctx context.Context, prefix, from []byte, yield func(key, value []byte) error) error {
	if bytes.Compare(from, prefix) < 0 {
		from = prefix
	}
	var stopped error
	err := s.walk(ctx, prefix, func(m *merge) error { return m.seek(from) }, func(e entry) bool {
		stopped = yield(e.key, e.value)
		return stopped == nil
	})
	if stopped != nil {
		return stopped
	}
	return err
}

// Last implements [journal.IndexStore].
func (s *Store) Last(ctx context.Context, prefix []byte) (key []byte, ok bool, err error) {
	begin := func(m *merge) error { return m.seekBelow(beyond(prefix)) }
	err = s.walk(ctx, prefix, begin, func(e entry) bool {
		key, ok = bytes.Clone(e.key), true
		return false
	})
	return key, ok, err
}

// beyond is the least key above all that start with prefix, or what is above all that is used.
func beyond(prefix []byte) []byte {
	b := bytes.Clone(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return b[:i+1]
		}
	}
	return bytes.Repeat([]byte{0xff}, maxKey)
}

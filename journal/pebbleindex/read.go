package pebbleindex

import (
	"bytes"
	"context"

	"github.com/cockroachdb/pebble/v2"
)

// checkEvery is how many entries a scan yields before it looks whether its context has ended.
const checkEvery = 64

// Get implements [journal.IndexStore].
func (s *Store) Get(_ context.Context, key []byte) (value []byte, ok bool, err error) {
	err = s.read(func(in *instance) error {
		return in.lookUp(key, func(it *pebble.Iterator) error {
			v, err := it.ValueAndErr()
			value, ok = append(make([]byte, 0, len(v)), v...), err == nil
			return err
		})
	})
	return value, ok, err
}

// Has implements [journal.IndexStore].
func (s *Store) Has(_ context.Context, key []byte) (ok bool, err error) {
	err = s.read(func(in *instance) error {
		return in.lookUp(key, func(*pebble.Iterator) error { ok = true; return nil })
	})
	return ok, err
}

// read runs a read of the present database.
func (s *Store) read(do func(*instance) error) error {
	in, err := s.use()
	if err != nil {
		return err
	}
	defer in.leave()
	return in.readError(guarded(false, func() error { return do(in) }))
}

// readError gives an error of a read its kind. Damage is noted on the disk, too, so that the next Open refuses
// the store, and its caller makes a new one.
func (in *instance) readError(err error) error {
	if err != nil && isDamage(err) && in.failure() == nil {
		in.note(err)
	}
	return classify("index", err)
}

// lookUp calls found if there is a key. It uses the filters of all levels, which Pebble's own Get does not.
func (in *instance) lookUp(key []byte, found func(*pebble.Iterator) error) error {
	it, err := in.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return err
	}
	if it.SeekPrefixGE(key) && bytes.Equal(it.Key(), key) {
		err = found(it)
	}
	return firstOf(err, it.Close())
}

// hasPrefix says whether there is a key with a prefix.
func (in *instance) hasPrefix(prefix []byte) (bool, error) {
	it, err := in.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: behind(prefix)})
	if err != nil {
		return false, err
	}
	there := it.First()
	return there, it.Close()
}

// Scan implements [journal.IndexStore].
func (s *Store) Scan(ctx context.Context, prefix, from []byte, yield func(key, value []byte) error) error {
	var stopped error // of yield, which goes back as it is
	err := s.read(func(in *instance) (err error) {
		low := prefix
		if bytes.Compare(from, low) > 0 {
			low = from
		}
		it, err := in.db.NewIter(within(low, prefix))
		if err != nil {
			return err
		}
		defer func() { err = firstOf(err, it.Close()) }()
		ok := false
		if s.isGroup(prefix) {
			ok = bytes.HasPrefix(low, prefix) && it.SeekPrefixGE(low)
		} else {
			ok = it.First()
		}
		for n := 0; ok; ok = it.Next() {
			if n%checkEvery == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			n++
			value, err := it.ValueAndErr()
			if err != nil {
				return err
			}
			key := it.Key()
			if stopped = yield(key[:len(key):len(key)], value[:len(value):len(value)]); stopped != nil {
				return nil
			}
		}
		return it.Error()
	})
	if stopped != nil {
		return stopped
	}
	return err
}

// within are the options of an iterator of the keys with a prefix, from low on. No key is empty, and Pebble takes an
// empty key for none: a bound that is empty is left out.
func within(low, prefix []byte) *pebble.IterOptions {
	o := &pebble.IterOptions{UpperBound: behind(prefix), UseL6Filters: true}
	if len(low) > 0 {
		o.LowerBound = low
	}
	return o
}

// isGroup says whether a prefix is that of a group, for which there are filters.
func (s *Store) isGroup(prefix []byte) bool {
	return len(prefix) > 0 && s.opt.Group(prefix) == len(prefix)
}

// Last implements [journal.IndexStore].
func (s *Store) Last(_ context.Context, prefix []byte) (key []byte, ok bool, err error) {
	err = s.read(func(in *instance) error {
		it, err := in.db.NewIter(within(prefix, prefix))
		if err != nil {
			return err
		}
		if !s.isGroup(prefix) || it.SeekPrefixGE(prefix) { // the filters know most groups that are not there
			if ok = it.Last(); ok {
				key = bytes.Clone(it.Key())
			}
		}
		return it.Close()
	})
	return key, ok, err
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

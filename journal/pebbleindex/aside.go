package pebbleindex

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// asideSuffix is what the directory of what was set aside has after the name of the store's.
const asideSuffix = ".damaged"

// asideKeep is how long what was set aside stays, unless more is: time for somebody to look
// into the damage. It is only removed when the store is opened.
const asideKeep = 30 * 24 * time.Hour

// SetAside implements [journal.IndexStore]. What it sets aside is in a directory beside the store's, whose
// name ends in ".damaged": what was there before goes. A store that has failed of damage goes on, empty.
func (s *Store) SetAside(context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	in, err := s.writable()
	if err == nil {
		err = in.failure()
	}
	if err != nil && journal.KindOf(err) != journal.KindCorrupt {
		return err
	}
	if err := s.begin(); err != nil {
		return classify("set aside", err)
	}
	in.retire()
	<-in.closed
	if err := s.keep(in.dir); err != nil { // then it is lost, which is better than no index
		s.opt.Logger.Warn("the files of the damaged index could not be kept", "error", err)
		err = s.opt.fs.RemoveAll(in.dir)
		if err != nil {
			return classify("set aside", err)
		}
	}
	return nil
}

// keep moves a database to where what is set aside is.
func (s *Store) keep(dir string) error {
	aside := s.dir + asideSuffix
	if err := errors.Join(s.opt.fs.RemoveAll(aside), s.opt.fs.MkdirAll(aside, 0o700)); err != nil {
		return err
	}
	return s.opt.fs.Rename(dir, s.opt.fs.PathJoin(aside, s.opt.fs.PathBase(dir)))
}

// dropAside removes what was set aside long ago.
func (s *Store) dropAside() error {
	aside := s.dir + asideSuffix
	info, err := s.opt.fs.Stat(aside)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || time.Since(info.ModTime()) < asideKeep {
		return err
	}
	return s.opt.fs.RemoveAll(aside)
}

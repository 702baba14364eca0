package lsm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
	err := s.writable()
	if err != nil && journal.KindOf(err) != journal.KindCorrupt {
		return err
	}
	if err := keepFiles(s.dir); err != nil { // then it is lost, which is better than no index
		s.opt.Logger.Warn("the files of the damaged index could not be kept", "error", err)
	}
	s.listing.Lock()
	defer s.listing.Unlock()
	if err := s.clear(); err != nil {
		return err
	}
	s.mu.Lock()
	s.err = nil
	s.mu.Unlock()
	s.signal() // the worker had stopped to write
	return nil
}

// keepFiles gives each file of dir a second name in another directory, as the first is about to go.
func keepFiles(dir string) error {
	aside := dir + asideSuffix
	if err := errors.Join(os.RemoveAll(aside), os.Mkdir(aside, 0o700)); err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if f.Type().IsRegular() {
			err = errors.Join(err, os.Link(filepath.Join(dir, f.Name()), filepath.Join(aside, f.Name())))
		}
	}
	return err
}

// dropAside removes what was set aside long ago.
func dropAside(dir string) error {
	aside := dir + asideSuffix
	info, err := os.Stat(aside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || time.Since(info.ModTime()) < asideKeep {
		return err
	}
	return os.RemoveAll(aside)
}

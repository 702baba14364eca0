package compile

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// codeEntry is what the store has under one name.
type codeEntry struct {
	name   string
	module service.Digest // the module; zero if the name is of another version
	file   string         // path of the machine code in the store; empty if there is none
	bytes  int64
	since  time.Time // when it was sealed
}

// extraDirs are the directories in which an entry may have a file of its name.
var extraDirs = []string{sealDir, formDir}

// entries lists the entries that have a seal. Whether their files are intact is checked when they are loaded.
func (s *store) entries() ([]codeEntry, error) {
	seals, err := os.ReadDir(filepath.Join(s.dir, sealDir))
	if err != nil {
		return nil, err
	}
	var all []codeEntry
	for _, seal := range seals {
		info, err := seal.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // it was removed meanwhile
		}
		e := codeEntry{name: seal.Name(), since: info.ModTime()}
		digest, _, _ := strings.Cut(e.name, "-")
		if raw, err := hex.DecodeString(digest); err == nil && len(raw) == len(e.module) && digest != e.name {
			e.module = service.Digest(raw)
		}
		if lines := bytes.SplitN(readHead(filepath.Join(s.dir, sealDir, e.name)), []byte("\n"), 3); len(lines) == 3 {
			if file := filepath.FromSlash(string(lines[1])); checkCodeFile(file) == nil {
				e.file = file
				e.bytes += sizeOf(filepath.Join(s.dir, file))
			}
		}
		for _, dir := range extraDirs {
			e.bytes += sizeOf(filepath.Join(s.dir, dir, e.name))
		}
		all = append(all, e)
	}
	return all, nil
}

// readHead reads as many bytes as a seal can have; none if that fails.
func readHead(name string) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, 1<<10)
	n, _ := f.Read(b)
	return b[:n]
}

// sizeOf is the size of a file in bytes, or 0 if there is none.
func sizeOf(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}

// collect removes the entries that are older than an age and not wanted. It returns the number of bytes that
// it has freed, and the files of the remaining entries.
func (s *store) collect(before time.Time, wanted func(codeEntry) bool) (freed int64, kept map[string]bool, err error) {
	all, err := s.entries()
	if err != nil {
		return 0, nil, err
	}
	kept = map[string]bool{} // files; two entries may share one
	var gone []codeEntry
	for _, e := range all {
		if e.since.Before(before) && !wanted(e) {
			gone = append(gone, e)
			continue
		}
		kept[e.file] = true
		for _, dir := range extraDirs {
			kept[filepath.Join(dir, e.name)] = true
		}
	}
	var errs []error
	remove := func(file string) {
		n, err := s.removeFile(file)
		freed += n
		errs = append(errs, err)
	}
	for _, e := range gone { // the seal first: without it the other files are ignored
		remove(filepath.Join(sealDir, e.name))
	}
	for _, e := range gone {
		for _, dir := range extraDirs[1:] {
			remove(filepath.Join(dir, e.name))
		}
		if e.file != "" && !kept[e.file] {
			remove(e.file)
		}
	}
	return freed, kept, errors.Join(errs...)
}

// removeFile removes a file of the store and returns its size. A missing file is not an error.
func (s *store) removeFile(file string) (freed int64, err error) {
	path := filepath.Join(s.dir, file)
	size := sizeOf(path)
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return size, nil
}

// collectUnsealed removes files that are older than an age and belong to no entry: remains of a crash, or of
// another version of wazero.
func (s *store) collectUnsealed(before time.Time, kept map[string]bool) (freed int64, err error) {
	dirs, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, d := range dirs {
		if !d.IsDir() || !strings.HasPrefix(d.Name(), "wazero-") && d.Name() != extraDirs[1] {
			continue
		}
		files, err := os.ReadDir(filepath.Join(s.dir, d.Name()))
		errs = append(errs, err)
		for _, f := range files {
			file := filepath.Join(d.Name(), f.Name())
			if info, err := f.Info(); err == nil && info.Mode().IsRegular() && info.ModTime().Before(before) &&
				!kept[file] {
				n, err := s.removeFile(file)
				freed += n
				errs = append(errs, err)
			}
		}
	}
	return freed, errors.Join(errs...)
}

// CodeBytes is how many bytes the machine code of each module takes on disk. Code of unknown modules is
// listed under the zero digest.
func (c *Compiler) CodeBytes() (map[service.Digest]int64, error) {
	sizes := map[service.Digest]int64{}
	if c.store == nil {
		return sizes, nil
	}
	all, err := c.store.entries()
	if err != nil {
		return nil, storeError(err)
	}
	for _, e := range all {
		sizes[e.module] += e.bytes
	}
	return sizes, nil
}

// RemoveCode removes the machine code of a module from the disk. Running programs go on.
func (c *Compiler) RemoveCode(module service.Digest) error {
	if c.store == nil {
		return nil
	}
	_, _, err := c.store.collect(time.Now().Add(time.Hour), func(e codeEntry) bool { return e.module != module })
	if err != nil {
		return storeError(err)
	}
	return nil
}

// CollectCode removes machine code that is older than an age and whose module is not stored. It returns the
// number of bytes that it has freed. It never removes files younger than stageAge, as a compilation may be
// about to install them.
func (c *Compiler) CollectCode(before time.Time, stored func(service.Digest) bool) (freed int64, err error) {
	if c.store == nil {
		return 0, nil
	}
	if newest := time.Now().Add(-stageAge); before.After(newest) {
		before = newest
	}
	freed, kept, err := c.store.collect(before, func(e codeEntry) bool { return stored(e.module) })
	if err == nil {
		var more int64
		more, err = c.store.collectUnsealed(before, kept)
		freed += more
	}
	if err != nil {
		return freed, storeError(err)
	}
	return freed, nil
}

// Remove removes what is stored under a name. The module was refused for what it did when it ran.
func (c *Compiler) Remove(name string) { c.store.remove(name) }

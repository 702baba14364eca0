// Package durable writes files that survive a loss of power: such a file is there whole or not at all.
//
// What is written goes to a temporary file in the same directory, which is synced, gets the file's
// name, and then the directory is synced. The last step is what renameio and other libraries leave out:
// without it a file that was reported as written can be gone.
package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Place gives a temporary file its name.
type Place func(temporary, path string) error

// Replace gives a file its name, and takes the place of what had it.
func Replace(temporary, path string) error { return os.Rename(temporary, path) }

// Keep gives a file its name, and fails if something has it.
func Keep(temporary, path string) error {
	if err := os.Link(temporary, path); err != nil { // a rename would replace what has the name
		return err
	}
	return os.Remove(temporary)
}

// Write has fill write a file, for its owner alone, and place gives it its name. It is safe for
// concurrent use. A crash can leave the temporary file; see [RemoveLeft].
//
// named says whether the file has its name. That can be so although there is an error: then only the
// directory could not be synced.
func Write(path string, fill func(*os.File) error, place Place) (named bool, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+suffix)
	if err != nil {
		return false, err
	}
	if err = fill(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = place(f.Name(), path)
	}
	if err != nil {
		return false, errors.Join(err, removeIfThere(f.Name()))
	}
	return true, SyncDir(filepath.Dir(path))
}

// WriteFile writes a small file in place of what is there.
func WriteFile(path string, content []byte) error {
	_, err := Write(path, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	}, Replace)
	return err
}

// suffix ends the name of a file that is being written: its own, a dot, digits, and this.
const suffix = ".unfinished"

// RemoveLeft removes the temporary files that a crash has left in a directory. Nobody may be writing
// there.
func RemoveLeft(dir string) error { return removeAll(filepath.Join(escape(dir), "*"+suffix)) }

// RemoveLeftOf removes those of one file. Nobody may be writing it.
func RemoveLeftOf(path string) error { return removeAll(escape(path) + ".*" + suffix) }

func removeAll(pattern string) error {
	left, err := filepath.Glob(pattern)
	for _, name := range left {
		err = errors.Join(err, removeIfThere(name))
	}
	return err
}

// escape has a path stand for itself in a pattern.
func escape(path string) string {
	var b bytes.Buffer
	for _, c := range []byte(path) {
		if runtime.GOOS != "windows" && bytes.IndexByte([]byte(`*?[\`), c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// SyncDir makes the names in a directory survive a loss of power, where the system can do that.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if runtime.GOOS == "windows" && os.IsPermission(err) { // which syncs no directory
		err = nil
	}
	return errors.Join(err, d.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

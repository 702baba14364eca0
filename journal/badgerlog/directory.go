package badgerlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// directory syncs the names of Badger's files. Badger makes a file of values or of a table in memory with its
// whole size, and syncs what is in it, but not the directory that names it.
type directory struct {
	path    string
	changed time.Time // the directory's time of change when it was last synced
	looked  time.Time // when that time was read
	sync    func(path string) error
}

// Two changes of a directory may bear the same time if they are no further apart than these.
const (
	timesApart  = 50 * time.Millisecond
	coarseApart = 3 * time.Second // where times are whole seconds
)

// settle syncs the directory if its set of files may have changed since the last call.
func (d *directory) settle() (synced bool, err error) {
	now := time.Now()
	info, err := os.Stat(d.path)
	if err != nil {
		return false, err
	}
	changed, apart := info.ModTime(), timesApart
	if changed.Nanosecond() == 0 {
		apart = coarseApart
	}
	if changed.Equal(d.changed) && d.looked.Sub(changed) > apart {
		return false, nil
	}
	if err := d.sync(d.path); err != nil {
		return false, err
	}
	d.changed, d.looked = changed, now
	return true, nil
}

// writeSynced writes a small file that has a checksum, or of which a part is as good as nothing. It writes in place,
// unlike internal/durable: a new name changes the directory, so settle would sync it once more after each list.
func writeSynced(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	return errors.Join(syncPath(path), syncPath(filepath.Dir(path)))
}

// syncPath syncs a file or directory; one that is gone is no error. internal/durable syncs directories only.
func syncPath(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = f.Sync()
	if runtime.GOOS == "windows" && os.IsPermission(err) { // it syncs only what may be written, and no directory
		err = nil
	}
	return errors.Join(err, f.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

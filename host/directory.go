package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// errLocked says that another process holds the lock of a directory.
var errLocked = errors.New("the directory is locked")

// takeDir makes sure that dir can be a host's data directory, and creates it if it is missing. It locks dir
// until the file is closed or the process ends, in whatever way. The host touches nothing else before.
func takeDir(dir string) (lock *os.File, err error) {
	if err := makeDir(dir); err != nil {
		return nil, unusable(dir, err)
	}
	lock, err = lockDir(dir)
	if errors.Is(err, errLocked) {
		return nil, &service.Error{Op: "open", Kind: service.KindUnavailable, Err: err,
			Message: "another process uses this data directory; stop it or name another directory"}
	}
	if err != nil {
		return nil, unusable(dir, causeOf(err))
	}
	if err := tryDir(dir); err != nil {
		return nil, errors.Join(unusable(dir, err), lock.Close())
	}
	return lock, nil
}

// makeDir creates the directory if it is missing. It fails if dir is something else.
func makeDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return errors.New("it is a file")
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return causeOf(err)
	}
	if to, err := os.Readlink(dir); err == nil {
		return fmt.Errorf("it is a link to %s, which does not exist", to)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("it cannot be made: %w", causeOf(err))
	}
	return nil
}

// tryDir creates a file in the directory and removes it.
func tryDir(dir string) error {
	f, err := os.CreateTemp(dir, ".writable-")
	if err != nil {
		err = fmt.Errorf("nothing can be written in it: %w", causeOf(err))
		if owner := otherOwner(dir); owner != "" {
			err = fmt.Errorf("%w; it belongs to %s, and this process runs as user %d", err, owner, os.Geteuid())
		}
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// otherOwner names the owner of a directory if that is another user.
func otherOwner(dir string) string {
	info, err := os.Stat(dir)
	if err != nil {
		return ""
	}
	if uid, known := ownerOf(info); known && int(uid) != os.Geteuid() {
		return fmt.Sprintf("user %d", uid)
	}
	return ""
}

// unusable is the error for a directory in which no host can run.
func unusable(dir string, err error) error {
	if full, e := filepath.Abs(dir); e == nil {
		dir = full
	}
	return &service.Error{Op: "open", Kind: service.KindInvalid, Message: fmt.Sprintf("the data directory %s cannot "+
		"be used: %s", dir, err), Err: err}
}

// causeOf is an error without its path, which is already in the message.
func causeOf(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

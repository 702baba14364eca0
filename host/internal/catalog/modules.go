package catalog

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Modules are the module files. Equal modules are one file; nothing removes one,
// as the journal's commands name the module that carried them out.
type Modules struct {
	dir string
}

// OpenModules opens the module files in a directory, which is made if it is not
// there. No host may be running on it.
func OpenModules(dir string) (Modules, error) {
	m := Modules{dir: dir}
	return m, m.prepare()
}

const extension = ".wasm"

// prepare makes the directory and removes what a crash left half-written.
func (m Modules) prepare() error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return service.Errorf(service.KindInternal, "make the directory of modules: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(m.dir, ".new-*"))
	if err != nil {
		return service.Errorf(service.KindInternal, "list the directory of modules: %w", err)
	}
	for _, file := range left {
		if err := os.Remove(file); err != nil {
			return service.Errorf(service.KindInternal, "remove a module that was half-written: %w", err)
		}
	}
	return nil
}

func (m Modules) path(d service.Digest) string {
	return filepath.Join(m.dir, hex.EncodeToString(d[:])+extension)
}

// Put stores a module and returns its digest once it is on disk. Storing the same
// module again changes nothing.
func (m Modules) Put(module []byte) (service.Digest, error) {
	d := service.DigestOf(module)
	if _, err := m.Get(d); err == nil {
		return d, nil
	}
	if err := writeWhole(m.dir, m.path(d), module); err != nil {
		return service.Digest{}, service.Errorf(service.KindUnavailable, "store module %s: %w", d, err)
	}
	return d, nil
}

// Get reads a module and checks it against its digest. KindNotFound if there is
// none.
func (m Modules) Get(d service.Digest) ([]byte, error) {
	module, err := os.ReadFile(m.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, service.Errorf(service.KindNotFound, "no module %s is stored; upload it first", d)
	}
	if err != nil {
		return nil, service.Errorf(service.KindInternal, "read module %s: %w", d, err)
	}
	if service.DigestOf(module) != d {
		return nil, service.Errorf(service.KindInternal, "the file of module %s is damaged; upload the module again", d)
	}
	return module, nil
}

// Size is the size of a stored module in bytes; 0 if it cannot be told.
func (m Modules) Size(d service.Digest) int64 {
	info, err := os.Stat(m.path(d))
	if err != nil {
		return 0
	}
	return info.Size()
}

// List names the stored modules, in order of their digests.
func (m Modules) List() ([]service.Digest, error) {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return nil, service.Errorf(service.KindInternal, "list modules: %w", err)
	}
	var all []service.Digest
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), extension)
		if !ok {
			continue
		}
		if d, err := service.ParseDigest(name); err == nil {
			all = append(all, d)
		}
	}
	return all, nil
}

// writeWhole writes a file that is there completely or not at all, whatever
// happens in between: to a new file, synced, renamed, and the rename synced.
func writeWhole(dir, path string, data []byte) (err error) {
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

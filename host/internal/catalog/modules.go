package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/durable"
)

// ModuleOptions bound the module files. A zero field sets no bound.
type ModuleOptions struct {
	// Account is charged with the bytes of all modules, as budget.DiskBytes. Only Modules takes
	// these from it.
	Account *budget.Account
	// Count is the maximum number of modules.
	Count int64
	// Room returns nil if the given number of bytes may be written to disk now, and otherwise a
	// [*service.Error] with the reason.
	Room func(bytes int64) error
	// Earlier is the number of modules of a service before the present one that stay stored for
	// rollbacks. Values below 1 mean 1.
	Earlier int
}

// Modules are the module files. Equal modules share one file. The modification time of a file is
// when the module was stored last, or when it lost its last reference; collection depends on it.
// Modules is safe for concurrent use.
type Modules struct {
	dir string
	opt ModuleOptions

	mu    sync.Mutex             // guards all below; held while a file is renamed or removed
	held  map[service.Digest]int // number of holds of each module
	whole int                    // number of holds of all modules
	// count is the number of modules, including those being written; refused counts modules that
	// were not stored because there were too many.
	count   int64
	refused uint64
}

// OpenModules opens the module files in a directory, and makes the directory if it is missing. No
// other host may use it.
func OpenModules(dir string, o ModuleOptions) (*Modules, error) {
	if o.Account == nil {
		o.Account = budget.New(nil)
	}
	if o.Room == nil {
		o.Room = func(int64) error { return nil }
	}
	m := &Modules{dir: dir, opt: o, held: map[service.Digest]int{}}
	return m, m.prepare()
}

const extension = ".wasm"

// prepare makes the directory, removes partly written files of a crashed process, and counts the
// modules.
func (m *Modules) prepare() error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return service.Errorf(service.KindInternal, "make the directory of modules: %w", err)
	}
	if err := durable.RemoveLeft(m.dir); err != nil {
		return service.Errorf(service.KindInternal, "remove modules that were half-written: %w", err)
	}
	all, err := m.Stored()
	if err != nil {
		return err
	}
	bytes := int64(0)
	for _, s := range all {
		bytes += s.Size
	}
	m.opt.Account.Set(budget.DiskBytes, bytes)
	m.count = int64(len(all))
	return nil
}

func (m *Modules) path(d service.Digest) string {
	return filepath.Join(m.dir, hex.EncodeToString(d[:])+extension)
}

// Put stores a module and returns its digest once it is on disk. If the module is stored already,
// only its time is renewed. The error has KindQuota if the disk, or the modules' part of it, is
// full.
func (m *Modules) Put(module []byte) (service.Digest, error) {
	d := service.DigestOf(module)
	if _, err := m.Get(d); err == nil && m.touch(d) {
		return d, nil
	}
	if err := m.enter(d); err != nil {
		return service.Digest{}, aboutModules(err)
	}
	size := int64(len(module))
	if err := m.opt.Account.Take(budget.DiskBytes, size); err != nil {
		m.leave()
		return service.Digest{}, aboutModules(err)
	}
	named, err := m.writeWhole(m.path(d), module)
	if !named {
		m.opt.Account.Give(budget.DiskBytes, size)
		m.leave()
	}
	if err != nil {
		return service.Digest{}, writeError(d, err)
	}
	return d, nil
}

// MayPut returns the error that Put would return now for a module of the given size, so that an
// upload can be refused early. A later Put may have another result.
func (m *Modules) MayPut(d service.Digest, bytes int64) error {
	if m.Has(d) {
		return nil
	}
	m.mu.Lock()
	err := m.full()
	m.mu.Unlock()
	if err == nil {
		err = m.opt.Account.Check(budget.DiskBytes, bytes)
	}
	if err == nil {
		err = m.opt.Room(bytes)
	}
	if err != nil {
		return aboutModules(err)
	}
	return nil
}

// Resource names the number of modules in refusals.
const Resource = "modules"

// full returns an error if the maximum number of modules is reached. The caller holds mu.
func (m *Modules) full() error {
	if m.opt.Count <= 0 || m.count < m.opt.Count {
		return nil
	}
	m.refused++
	return &service.Error{Kind: service.KindQuota, Resource: Resource, Used: m.count, Limit: m.opt.Count,
		Message: fmt.Sprintf("there are %d modules of the %d that there may be", m.count, m.opt.Count)}
}

// enter counts a module before it is written; leave undoes that. A module that replaces its own
// damaged file is always accepted.
func (m *Modules) enter(d service.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := os.Stat(m.path(d)); err != nil {
		if err := m.full(); err != nil {
			return err
		}
	}
	m.count++
	return nil
}

func (m *Modules) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count--
}

// Usage returns the number of modules and its maximum.
func (m *Modules) Usage() service.ResourceUsage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return service.ResourceUsage{Resource: Resource, Used: m.count, Limit: m.opt.Count, Refused: m.refused}
}

// aboutModules adds to a quota error what the operator can do.
func aboutModules(err error) error {
	var e *service.Error
	if !errors.As(err, &e) {
		return err
	}
	own := *e
	own.Message = "the module was not stored: " + own.Message + "; modules that nothing refers to can be deleted"
	return &own
}

// touch renews a module's time, so that it is not collected for a while. It reports whether the
// module exists.
func (m *Modules) touch(d service.Digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	return os.Chtimes(m.path(d), now, now) == nil
}

// writeError translates an error of writing a module's file.
func writeError(d service.Digest, err error) error {
	var own *service.Error
	switch {
	case errors.As(err, &own):
		return aboutModules(err)
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return aboutModules(&service.Error{Kind: service.KindQuota, Resource: budget.DiskBytes.String(),
			Message: "the disk is full", Err: err})
	}
	return service.Errorf(service.KindUnavailable, "store module %s: %w", d, err)
}

// Get reads a module and checks it against its digest. The error has KindNotFound if there is none,
// and KindUnavailable if the file is damaged.
func (m *Modules) Get(d service.Digest) ([]byte, error) {
	module, err := os.ReadFile(m.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, service.Errorf(service.KindNotFound, "no module %s is stored; upload it first", d)
	}
	if err != nil {
		return nil, service.Errorf(service.KindInternal, "read module %s: %w", d, err)
	}
	if service.DigestOf(module) != d {
		return nil, service.Errorf(service.KindUnavailable,
			"the file of module %s is damaged; upload the module again", d)
	}
	return module, nil
}

// Has reports whether a module is stored, without reading it.
func (m *Modules) Has(d service.Digest) bool {
	_, err := os.Stat(m.path(d))
	return err == nil
}

// Check is Get for a caller that does not need the content: it reads the file in pieces and returns
// its size in bytes. Errors are those of Get.
func (m *Modules) Check(d service.Digest) (size int64, err error) {
	f, err := os.Open(m.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, service.Errorf(service.KindNotFound, "no module %s is stored; upload it first", d)
	}
	if err != nil {
		return 0, service.Errorf(service.KindInternal, "read module %s: %w", d, err)
	}
	defer f.Close()
	hash := sha256.New()
	if size, err = io.Copy(hash, f); err != nil {
		return 0, service.Errorf(service.KindInternal, "read module %s: %w", d, err)
	}
	if service.Digest(hash.Sum(nil)) != d {
		return 0, service.Errorf(service.KindUnavailable,
			"the file of module %s is damaged; upload the module again", d)
	}
	return size, nil
}

// Size returns the size of a stored module in bytes; 0 if it is unknown.
func (m *Modules) Size(d service.Digest) int64 {
	info, err := os.Stat(m.path(d))
	if err != nil {
		return 0
	}
	return info.Size()
}

// List returns the digests of the stored modules, sorted.
func (m *Modules) List() ([]service.Digest, error) {
	stored, err := m.Stored()
	var all []service.Digest
	for _, s := range stored {
		all = append(all, s.Digest)
	}
	return all, err
}

// Keeps reports whether a module is stored, or held by a caller that is about to store it.
func (m *Modules) Keeps(d service.Digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := os.Stat(m.path(d))
	return err == nil || m.held[d] > 0
}

// Stored returns the stored modules, sorted by digest, without what refers to them.
func (m *Modules) Stored() ([]service.StoredModule, error) {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return nil, service.Errorf(service.KindInternal, "list modules: %w", err)
	}
	var all []service.StoredModule
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), extension)
		if !ok {
			continue
		}
		d, err := service.ParseDigest(name)
		if err != nil {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, service.Errorf(service.KindInternal, "list modules: %w", err)
		}
		all = append(all, service.StoredModule{Digest: d, Size: info.Size(), Since: info.ModTime()})
	}
	return all, nil
}

// Hold keeps a module from being removed, whether it exists or not, until release is called. It is
// for callers that are about to refer to it. release may be called more than once.
func (m *Modules) Hold(d service.Digest) (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[d]++
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.held[d]--; m.held[d] == 0 {
			delete(m.held, d)
		}
	})
}

// HoldAll keeps all modules from being removed until release is called. It is for callers that read
// them one after the other. release may be called more than once.
func (m *Modules) HoldAll() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.whole++
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.whole--
	})
}

// remove removes a module that was stored before the given time and is not held, and reports
// whether it did. The removal is on disk when remove returns, and also (may be nil) has run before
// anyone can hold the module again. The error has KindConflicting if the module is held, and
// KindNotFound if it does not exist.
func (m *Modules) remove(d service.Digest, before time.Time,
	also func(service.Digest) error) (removed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := os.Stat(m.path(d))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, service.Errorf(service.KindNotFound, "no module %s is stored", d)
	case err != nil:
		return false, service.Errorf(service.KindInternal, "delete module %s: %w", d, err)
	case m.held[d] > 0 || m.whole > 0:
		return false, service.Errorf(service.KindConflicting, "module %s is being uploaded, deployed or backed up; "+
			"try again later", d)
	case !info.ModTime().Before(before):
		return false, nil
	}
	if err := errors.Join(os.Remove(m.path(d)), durable.SyncDir(m.dir)); err != nil {
		return false, service.Errorf(service.KindInternal, "delete module %s: %w", d, err)
	}
	m.opt.Account.Give(budget.DiskBytes, info.Size())
	m.count--
	if also != nil {
		return true, also(d)
	}
	return true, nil
}

// piece is how many bytes of a module are written before the room on disk is checked again.
const piece = 1 << 20

// writeWhole writes a file atomically, also if the power fails. named reports whether the file has
// its name, which can be so even if the error is not nil: then the name may not be on disk yet.
func (m *Modules) writeWhole(path string, data []byte) (named bool, err error) {
	if err := m.opt.Room(int64(len(data))); err != nil {
		return false, err
	}
	return durable.Write(path, func(f *os.File) error { return m.fill(f, data) }, m.name)
}

// fill writes a file.
func (m *Modules) fill(f *os.File, data []byte) error {
	for rest := data; len(rest) > 0; {
		if len(rest) < len(data) { // others may have written meanwhile
			if err := m.opt.Room(int64(len(rest))); err != nil {
				return err
			}
		}
		n := min(len(rest), piece)
		if _, err := f.Write(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// name renames a file. If it replaces one, that is no longer counted.
func (m *Modules) name(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	info, old := os.Stat(to)
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if old == nil {
		m.opt.Account.Give(budget.DiskBytes, info.Size())
		m.count--
	}
	return nil
}

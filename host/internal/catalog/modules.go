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

	"github.com/bulkhead-wasm/bulkhead/host/internal/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/internal/durable"
)

// ModuleOptions bound the module files. A zero field sets no bound.
type ModuleOptions struct {
	// Account is charged with the bytes of all modules, as budget.DiskBytes. Nobody else
	// takes these from it.
	Account *budget.Account
	// Count bounds the modules.
	Count int64
	// Room says whether so many bytes may be written to the disk now; if not, its error
	// is a [*service.Error] that says why.
	Room func(bytes int64) error
}

// Modules are the module files. Equal modules are one file. A file's time is when the
// module was stored last, or lost its last reference: it is removed only so long after. It
// may be used concurrently.
type Modules struct {
	dir string
	opt ModuleOptions

	mu    sync.Mutex             // guards what follows, and is held while a file gets or loses its name
	held  map[service.Digest]int // by those that are about to refer to a module
	whole int                    // by those that read them all
	// count is how many there are, with those that are being written; refused is how many
	// were not stored, as there were too many.
	count   int64
	refused uint64
}

// OpenModules opens the module files in a directory, which is made if it is not
// there. No host may be running on it.
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

// prepare makes the directory, removes what a crash left half-written, and counts
// what there is.
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

// Put stores a module and returns its digest once it is on disk. Storing the same
// module again makes it young and changes nothing else. If the modules have used up
// their room on the disk, or it is the journal's, the error is of kind KindQuota.
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

// MayPut returns why a module of so many bytes would not be stored now, so that nobody
// works on one in vain. The answer may have changed when Put comes.
func (m *Modules) MayPut(d service.Digest, bytes int64) error {
	if _, err := os.Stat(m.path(d)); err == nil {
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

// Resource is the name of the number of modules in refusals.
const Resource = "modules"

// full says that there are as many modules as there may be, or nothing. The caller holds mu.
func (m *Modules) full() error {
	if m.opt.Count <= 0 || m.count < m.opt.Count {
		return nil
	}
	m.refused++
	return &service.Error{Kind: service.KindQuota, Resource: Resource, Used: m.count, Limit: m.opt.Count,
		Message: fmt.Sprintf("there are %d modules of the %d that there may be", m.count, m.opt.Count)}
}

// enter counts a module before it is written, and leave one fewer. There is always a
// place for one that takes the place of its damaged file.
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

// Usage is how many modules there are, of how many.
func (m *Modules) Usage() service.ResourceUsage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return service.ResourceUsage{Resource: Resource, Used: m.count, Limit: m.opt.Count, Refused: m.refused}
}

// aboutModules says what to do about a quota of the disk.
func aboutModules(err error) error {
	var e *service.Error
	if !errors.As(err, &e) {
		return err
	}
	own := *e
	own.Message = "the module was not stored: " + own.Message + "; modules that nothing refers to can be deleted"
	return &own
}

// touch makes a module young, so that nobody removes it for a while. It reports
// whether it is there.
func (m *Modules) touch(d service.Digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	return os.Chtimes(m.path(d), now, now) == nil
}

// writeError says why the file of a module could not be written.
func writeError(d service.Digest, err error) error {
	var own *service.Error
	switch {
	case errors.As(err, &own):
		return aboutModules(err)
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return aboutModules(&service.Error{Kind: service.KindQuota, Resource: budget.DiskBytes.String(), Message: "the disk is full", Err: err})
	}
	return service.Errorf(service.KindUnavailable, "store module %s: %w", d, err)
}

// Get reads a module and checks it against its digest. KindNotFound if there is
// none.
func (m *Modules) Get(d service.Digest) ([]byte, error) {
	module, err := os.ReadFile(m.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, service.Errorf(service.KindNotFound, "no module %s is stored; upload it first", d)
	}
	if err != nil {
		return nil, service.Errorf(service.KindInternal, "read module %s: %w", d, err)
	}
	if service.DigestOf(module) != d {
		return nil, service.Errorf(service.KindUnavailable, "the file of module %s is damaged; upload the module again", d)
	}
	return module, nil
}

// Check is Get without holding the module: it reads it in pieces, checks it against its
// digest, and returns its size in bytes. Errors are those of Get.
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
		return 0, service.Errorf(service.KindUnavailable, "the file of module %s is damaged; upload the module again", d)
	}
	return size, nil
}

// Size is the size of a stored module in bytes; 0 if it cannot be told.
func (m *Modules) Size(d service.Digest) int64 {
	info, err := os.Stat(m.path(d))
	if err != nil {
		return 0
	}
	return info.Size()
}

// List names the stored modules, in order of their digests.
func (m *Modules) List() ([]service.Digest, error) {
	stored, err := m.Stored()
	var all []service.Digest
	for _, s := range stored {
		all = append(all, s.Digest)
	}
	return all, err
}

// Keeps reports whether a module is stored, or held by who is about to store it.
func (m *Modules) Keeps(d service.Digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := os.Stat(m.path(d))
	return err == nil || m.held[d] > 0
}

// Stored lists the stored modules, in order of their digests. It does not know what
// refers to them.
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

// Hold keeps a module from being removed, whether it is there or not, until release
// is called: for who is about to refer to it. release may be called more than once.
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

// HoldAll keeps all modules from being removed until release is called: for who reads
// them one after the other.
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

// remove removes a module that is older than a time, and is not held; removed says
// whether it did. It is gone for good when remove returns, and so is what also removes of
// it, before anybody can hold it again. KindConflicting if it is held, KindNotFound if it is
// not there.
func (m *Modules) remove(d service.Digest, before time.Time, also func(service.Digest) error) (removed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := os.Stat(m.path(d))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, service.Errorf(service.KindNotFound, "no module %s is stored", d)
	case err != nil:
		return false, service.Errorf(service.KindInternal, "delete module %s: %w", d, err)
	case m.held[d] > 0 || m.whole > 0:
		return false, service.Errorf(service.KindConflicting, "module %s is being uploaded, deployed or backed up; try again later", d)
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

// piece is how much of a module is written before the disk's room is looked at again.
const piece = 1 << 20

// writeWhole writes a file that is there completely or not at all, also after a loss of power. named says
// whether the file has its name, which it may without the name being synced.
func (m *Modules) writeWhole(path string, data []byte) (named bool, err error) {
	if err := m.opt.Room(int64(len(data))); err != nil {
		return false, err
	}
	return durable.Write(path, func(f *os.File) error { return m.fill(f, data) }, m.name)
}

// fill writes a file.
func (m *Modules) fill(f *os.File, data []byte) error {
	for rest := data; len(rest) > 0; {
		if len(rest) < len(data) { // others write meanwhile
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

// name gives a file its name. What had it before counts no more.
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

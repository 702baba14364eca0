package compile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// store is compiled code on disk. wazero's own cache is a part of it, and wazero checks little before it
// executes a file of its cache. So only entries with a seal are used: a seal is a file that names a file of
// wazero's, and has the hashes of its content and of the form that belongs to it. Files that were truncated,
// overwritten or added by others are compiled again.
//
//	wazero-<version>-<architecture>-<system>/<key>   wazero's: machine code
//	forms/<name>                                     ours: what else is kept of a module
//	seals/<name>                                     ours
//	stages/<random>/                                 where a compilation writes
//
// A name is the digest of the uploaded module, a dash, and a hash of everything else that decides its code.
//
// Anyone who can write to the directory can run code in the host, in spite of the hashes. Only the host's
// user may have access.
type store struct {
	dir       string
	temporary bool // removed by close
}

const (
	sealDir   = "seals"
	formDir   = "forms"
	stageDir  = "stages"
	stageLock = "lock"
	// stageAge is the age from which a stage is unused for certain, even if its lock cannot be checked: no
	// compilation takes that long.
	stageAge = 2 * time.Hour
	// maxCodeBytes is the maximum size of a module's machine code, which is about five times the module's
	// size.
	maxCodeBytes = 1 << 30
)

// openStore opens or makes a store. If dir is empty the store is temporary.
func openStore(dir string) (*store, error) {
	s := &store{dir: dir}
	if dir == "" {
		var err error
		if s.dir, err = os.MkdirTemp("", "bulkhead-code-"); err != nil {
			return nil, err
		}
		s.temporary = true
	}
	for _, d := range []string{s.dir, filepath.Join(s.dir, sealDir), filepath.Join(s.dir, formDir),
		filepath.Join(s.dir, stageDir)} {
		if err := makePrivate(d); err != nil {
			return nil, err
		}
	}
	return s, s.sweep()
}

// sweep removes the stages of processes that have ended, and those that are too old. If a second host is
// started on this directory by mistake, it does not remove the stages of the first.
func (s *store) sweep() error {
	left, err := os.ReadDir(filepath.Join(s.dir, stageDir))
	if err != nil {
		return err
	}
	for _, e := range left {
		stage := filepath.Join(s.dir, stageDir, e.Name())
		info, err := e.Info()
		if err != nil {
			continue // it was removed meanwhile
		}
		lock, _ := lockStage(filepath.Join(stage, stageLock), 0)
		if lock != nil {
			_ = lock.Close() // with the lock; nobody else needs this stage
		}
		if lock == nil && time.Since(info.ModTime()) <= stageAge {
			continue // a process works in it, or has not locked it yet
		}
		if err := os.RemoveAll(stage); err != nil {
			return err
		}
	}
	return nil
}

// makePrivate makes a directory that only its owner, this process's user, can enter. A directory that others
// own or can write to may contain their code.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil || runtime.GOOS == "windows" { // these bits mean nothing there
		return err
	}
	if uid, other := ownedByOther(info, os.Geteuid()); other {
		return fmt.Errorf("%s belongs to another user (%d), and what is in it is executed; remove it, and the host "+
			"makes it again", dir, uid)
	}
	switch mode := info.Mode().Perm(); {
	case mode&0o022 != 0:
		return fmt.Errorf("%s can be written to by others (mode %04o), and what is in it is executed; remove it, it "+
			"will be made again", dir, mode)
	case mode&0o077 != 0:
		return os.Chmod(dir, 0o700)
	}
	return nil
}

func (s *store) close() error {
	if !s.temporary {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// name is the name under which a module's form and code are kept.
func (o Order) name(d service.Digest) string {
	rest := sha256.Sum256(fmt.Appendf(nil, "form %d, tariff %d, tables %d, NaN %t", formVersion, metering.TariffVersion,
		o.tableElements, o.keepNaN))
	return hex.EncodeToString(d[:]) + "-" + hex.EncodeToString(rest[:8])
}

// open reads the form with that name, if the form and its code are intact. coded reports whether there is
// code.
func (s *store) open(name string, maxBytes int64) (form []byte, coded bool, err error) {
	text, err := readAtMost(filepath.Join(s.dir, sealDir, name), maxSeal)
	if err != nil {
		return nil, false, err
	}
	seal, err := parseSeal(text)
	if err != nil {
		return nil, false, err
	}
	if form, err = readAtMost(filepath.Join(s.dir, formDir, name), maxBytes); err != nil {
		return nil, false, err
	}
	if service.DigestOf(form) != seal.form {
		return nil, false, errors.New("the form is not as it was written")
	}
	if seal.file == "" {
		return form, false, nil
	}
	have, err := hashFile(filepath.Join(s.dir, seal.file))
	if err == nil && have != seal.code {
		err = errors.New("the code is not as it was written")
	}
	return form, true, err
}

// size is the size of the code with that name, or 0 if there is none.
func (s *store) size(name string) int64 {
	text, err := readAtMost(filepath.Join(s.dir, sealDir, name), maxSeal)
	if err != nil {
		return 0
	}
	seal, err := parseSeal(text)
	if err != nil || seal.file == "" {
		return 0
	}
	info, err := os.Stat(filepath.Join(s.dir, seal.file))
	if err != nil {
		return 0
	}
	return info.Size()
}

// stage makes a directory to compile into, which is empty except for its lock. unstage removes it. If this
// process ends before that, a later one removes it.
func (s *store) stage() (dir string, unstage func(), err error) {
	if err := s.sweep(); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(filepath.Join(s.dir, stageDir), ""); err != nil {
		return "", nil, err
	}
	lock, err := lockStage(filepath.Join(dir, stageLock), os.O_CREATE)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, func() {
		_ = os.RemoveAll(dir) // otherwise the next sweep does
		if lock != nil {
			_ = lock.Close()
		}
	}, nil
}

// install moves the form from a stage into the store, and the code if file is not empty. Then it seals them.
func (s *store) install(name, stage, file string) (err error) {
	seal := seal{file: file}
	if file != "" {
		if err := checkCodeFile(file); err != nil {
			return err
		}
		if seal.code, err = s.move(filepath.Join(stage, file), file); err != nil {
			return err
		}
	}
	if seal.form, err = s.move(filepath.Join(stage, formFile), filepath.Join(formDir, name)); err != nil {
		return err
	}
	// The seal comes last, so that it never exists without its files. If a crash leaves half a seal, it seals
	// nothing.
	written := filepath.Join(stage, "seal")
	if err := os.WriteFile(written, appendSeal(nil, seal), 0o600); err != nil {
		return err
	}
	return os.Rename(written, filepath.Join(s.dir, sealDir, name))
}

// move moves a file to its place in the store, and returns the hash of its content.
func (s *store) move(from, to string) (sum [sha256.Size]byte, err error) {
	to = filepath.Join(s.dir, to)
	if sum, err = hashFile(from); err != nil {
		return sum, err
	}
	if err := makePrivate(filepath.Dir(to)); err != nil {
		return sum, err
	}
	return sum, os.Rename(from, to)
}

// remove removes form and code. Programs that run have already loaded it; later ones compile it again.
func (s *store) remove(name string) {
	file := filepath.Join(s.dir, sealDir, name)
	text, err := readAtMost(file, maxSeal)
	if err != nil {
		return
	}
	// Code without its seal is ignored, so a file that cannot be removed only wastes space.
	_ = os.Remove(file)
	_ = os.Remove(filepath.Join(s.dir, formDir, name))
	if seal, err := parseSeal(text); err == nil && seal.file != "" {
		_ = os.Remove(filepath.Join(s.dir, seal.file))
	}
}

// seal names what belongs to an entry, and has its hashes.
type seal struct {
	file       string // machine code; empty if there is none
	code, form [sha256.Size]byte
}

// sealHead begins a seal. Its number changes with the format.
const sealHead = "bulkhead code 2"

// maxSeal is the maximum size of a seal, in bytes.
const maxSeal = 1 << 10

// appendSeal encodes a seal: four lines, of which the second is empty if there is no code.
func appendSeal(b []byte, s seal) []byte {
	return fmt.Appendf(b, "%s\n%s\n%x\n%x\n", sealHead, filepath.ToSlash(s.file), s.code, s.form)
}

func parseSeal(text []byte) (s seal, err error) {
	lines := bytes.Split(text, []byte("\n"))
	if len(lines) != 5 || string(lines[0]) != sealHead || len(lines[4]) != 0 {
		return s, errors.New("not a seal")
	}
	for i, sum := range []*[sha256.Size]byte{&s.code, &s.form} {
		if line := lines[2+i]; len(line) != hex.EncodedLen(len(sum)) {
			return s, errors.New("not a seal's hash")
		} else if _, err := hex.Decode(sum[:], line); err != nil {
			return s, err
		}
	}
	if s.file = filepath.FromSlash(string(lines[1])); s.file == "" {
		return s, nil
	}
	return s, checkCodeFile(s.file)
}

// checkCodeFile refuses a path that is not a file of wazero's cache.
func checkCodeFile(file string) error {
	dir, base := filepath.Split(file)
	dir = strings.TrimSuffix(dir, string(filepath.Separator))
	if !filepath.IsLocal(file) || !strings.HasPrefix(dir, "wazero-") || strings.ContainsRune(dir, filepath.Separator) {
		return fmt.Errorf("%.200q is no file of compiled code", file)
	}
	if _, err := hex.DecodeString(base); err != nil || len(base) != hex.EncodedLen(sha256.Size) {
		return fmt.Errorf("%.200q is no file of compiled code", file)
	}
	return nil
}

func hashFile(name string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxCodeBytes {
		return sum, errors.Join(err, fmt.Errorf("%s is no file of a size that compiled code has", name))
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// onlyCode finds the one file that a compilation has left in its directory. There is none where wazero has
// only its interpreter.
func onlyCode(dir string) (file string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if file != "" {
			return errors.New("the compiler left more than one file")
		}
		file, err = filepath.Rel(dir, path)
		return err
	})
	return file, err
}

func storeError(err error) error {
	return &service.Error{Kind: service.KindInternal, Message: "the compiled code cannot be stored", Err: err}
}

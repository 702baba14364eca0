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

// store is compiled code on disk. wazero's own cache is a part of it, of whose
// files wazero checks little before it executes them. So nothing is looked for in
// it but what has a seal: a file that names a file of wazero's, and has the hashes of
// its content and of the form that belongs to it. What was cut, overwritten or put
// there by somebody else is compiled again.
//
//	wazero-<version>-<architecture>-<system>/<key>   wazero's: machine code
//	forms/<name>                                     ours: what else is kept of a module
//	seals/<name>                                     ours
//	stages/<random>/                                 where a compilation writes
//
// A name is the digest of the module as it was uploaded, a dash, and a hash of what
// else decides about its code.
//
// Whoever can write to the directory can have code executed, hash or not: it is
// for the host's user alone.
type store struct {
	dir       string
	temporary bool // removed at the end
}

const (
	sealDir   = "seals"
	formDir   = "forms"
	stageDir  = "stages"
	stageLock = "lock"
	// stageAge is when a stage is certainly nobody's any more, whether its lock can be
	// asked for or not: no compilation takes as long.
	stageAge = 2 * time.Hour
	// maxCodeBytes bounds the machine code of one module; it is some five times its size.
	maxCodeBytes = 1 << 30
)

// openStore opens or makes a store. Without a directory it is a temporary one.
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

// sweep removes the stages of processes that have ended, and those that are too old.
// Another host that was started on this directory by mistake does not remove the stages
// of the one that runs.
func (s *store) sweep() error {
	left, err := os.ReadDir(filepath.Join(s.dir, stageDir))
	if err != nil {
		return err
	}
	for _, e := range left {
		stage := filepath.Join(s.dir, stageDir, e.Name())
		info, err := e.Info()
		if err != nil {
			continue // it has just gone
		}
		lock, _ := lockStage(filepath.Join(stage, stageLock), 0)
		if lock != nil {
			_ = lock.Close() // with the lock; nobody else wants this stage
		}
		if lock == nil && time.Since(info.ModTime()) <= stageAge {
			continue // somebody works in it, or has not come to lock it
		}
		if err := os.RemoveAll(stage); err != nil {
			return err
		}
	}
	return nil
}

// makePrivate makes a directory that only its owner, this process's user, can enter. One in which
// others could write, or that is another user's, may hold code of theirs.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil || runtime.GOOS == "windows" { // where these bits mean nothing
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

// open reads the form of that name, if it and its code are there as they were written.
// coded says whether there is code.
func (s *store) open(name string, most int64) (form []byte, coded bool, err error) {
	text, err := readAtMost(filepath.Join(s.dir, sealDir, name), maxSeal)
	if err != nil {
		return nil, false, err
	}
	seal, err := parseSeal(text)
	if err != nil {
		return nil, false, err
	}
	if form, err = readAtMost(filepath.Join(s.dir, formDir, name), most); err != nil {
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

// size is how large the code of that name is; 0 if it is not there.
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

// stage makes a directory to compile into, which is empty but for its lock. unstage
// removes it; if this process ends before, a later one does.
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
		_ = os.RemoveAll(dir) // or the next sweep does
		if lock != nil {
			_ = lock.Close()
		}
	}, nil
}

// install takes over what a compilation has left in a stage: the form, and the code in
// a file of that name if it is not empty. It seals them.
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
	// The seal is last, so that it never stands without its files; if a crash leaves
	// half of it, it seals nothing.
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

// remove takes form and code away again. Whoever runs it has loaded it; whoever wants
// it compiles it again.
func (s *store) remove(name string) {
	file := filepath.Join(s.dir, sealDir, name)
	text, err := readAtMost(file, maxSeal)
	if err != nil {
		return
	}
	// Without its seal code counts for nothing, so what cannot be removed is only a
	// waste of room.
	_ = os.Remove(file)
	_ = os.Remove(filepath.Join(s.dir, formDir, name))
	if seal, err := parseSeal(text); err == nil && seal.file != "" {
		_ = os.Remove(filepath.Join(s.dir, seal.file))
	}
}

// seal says what belongs to a name, and what is in it.
type seal struct {
	file       string // of machine code; empty if there is none
	code, form [sha256.Size]byte
}

// sealHead begins a seal. Its number changes with what follows.
const sealHead = "bulkhead code 2"

// maxSeal bounds a seal, in bytes.
const maxSeal = 1 << 10

// appendSeal writes a seal: four lines, of which the second is empty if there is no code.
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

// checkCodeFile refuses what is not the path of a file of wazero's cache.
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

// onlyCode finds the one file that a compilation has left in its directory; none
// where wazero has no compiler, only its interpreter.
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

package sandbox

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

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// codeStore is compiled code on disk. wazero's own cache is a part of it, of whose
// files wazero checks little before it executes them. So nothing is looked for in
// it but what has a seal: a file that names a file of wazero's and the hash of its
// content. What was cut, overwritten or put there by somebody else is compiled again.
//
//	wazero-<version>-<architecture>-<system>/<key>   wazero's: machine code
//	seals/<hash of the binary>                       ours
//	stages/<random>/                                 where a compilation writes
//
// Whoever can write to the directory can have code executed, hash or not: it is
// for the host's user alone.
type codeStore struct {
	dir       string
	temporary bool // removed at the end
}

const (
	sealDir  = "seals"
	stageDir = "stages"
	// stageAge is when a stage is certainly nobody's any more: no compilation takes as
	// long. Another host that was started on this directory by mistake must not
	// remove the stages of the one that runs.
	stageAge = 2 * time.Hour
	// maxCodeBytes bounds the machine code of one module; it is some five times its size.
	maxCodeBytes = 1 << 30
)

// openCode opens or makes a store. Without a directory it is a temporary one.
func openCode(dir string) (*codeStore, error) {
	s := &codeStore{dir: dir}
	if dir == "" {
		var err error
		if s.dir, err = os.MkdirTemp("", "bulkhead-code-"); err != nil {
			return nil, err
		}
		s.temporary = true
	}
	for _, d := range []string{s.dir, filepath.Join(s.dir, sealDir), filepath.Join(s.dir, stageDir)} {
		if err := makePrivate(d); err != nil {
			return nil, err
		}
	}
	left, err := os.ReadDir(filepath.Join(s.dir, stageDir))
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > stageAge {
			if err := os.RemoveAll(filepath.Join(s.dir, stageDir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// makePrivate makes a directory that only its owner can enter. One in which
// others could write may hold code of theirs.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil || runtime.GOOS == "windows" { // where these bits mean nothing
		return err
	}
	switch mode := info.Mode().Perm(); {
	case mode&0o022 != 0:
		return fmt.Errorf("%s can be written to by others (mode %04o), and what is in it is executed; remove it, it will be made again", dir, mode)
	case mode&0o077 != 0:
		return os.Chmod(dir, 0o700)
	}
	return nil
}

func (s *codeStore) close() error {
	if !s.temporary {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// codeName is the name under which a binary's code is stored.
func codeName(binary []byte) string {
	h := sha256.Sum256(binary)
	return hex.EncodeToString(h[:])
}

// holds reports whether the code of that name is there and as it was written.
func (s *codeStore) holds(name string) bool {
	text, err := os.ReadFile(filepath.Join(s.dir, sealDir, name))
	if err != nil {
		return false
	}
	file, sum, err := parseSeal(text)
	if err != nil {
		return false
	}
	have, err := hashFile(filepath.Join(s.dir, file))
	return err == nil && have == sum
}

// stage makes an empty directory to compile into. unstage removes it.
func (s *codeStore) stage() (dir string, unstage func(), err error) {
	if dir, err = os.MkdirTemp(filepath.Join(s.dir, stageDir), ""); err != nil {
		return "", nil, err
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil // or the next start will, when it is old
}

// install takes the code over that stands in a file of a stage, and seals it.
func (s *codeStore) install(name, stage, file string) error {
	if err := checkCodeFile(file); err != nil {
		return err
	}
	from, to := filepath.Join(stage, file), filepath.Join(s.dir, file)
	sum, err := hashFile(from)
	if err != nil {
		return err
	}
	if err := makePrivate(filepath.Dir(to)); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	// The seal is last, so that it never stands without its file; if a crash leaves
	// half of it, it seals nothing.
	seal := filepath.Join(stage, "seal")
	if err := os.WriteFile(seal, appendSeal(nil, file, sum), 0o600); err != nil {
		return err
	}
	return os.Rename(seal, filepath.Join(s.dir, sealDir, name))
}

// remove takes code away again. Whoever runs it has loaded it; whoever wants it anew
// compiles it anew.
func (s *codeStore) remove(name string) {
	seal := filepath.Join(s.dir, sealDir, name)
	text, err := os.ReadFile(seal)
	if err != nil {
		return
	}
	// Without its seal code counts for nothing, so what cannot be removed is only a
	// waste of room.
	_ = os.Remove(seal)
	if file, _, err := parseSeal(text); err == nil {
		_ = os.Remove(filepath.Join(s.dir, file))
	}
}

// sealHead begins a seal. Its number changes with what follows.
const sealHead = "bulkhead code 1"

// appendSeal writes a seal: three lines.
func appendSeal(b []byte, file string, sum [sha256.Size]byte) []byte {
	return fmt.Appendf(b, "%s\n%s\n%x\n", sealHead, filepath.ToSlash(file), sum)
}

func parseSeal(text []byte) (file string, sum [sha256.Size]byte, err error) {
	lines := bytes.Split(text, []byte("\n"))
	if len(lines) != 4 || string(lines[0]) != sealHead || len(lines[3]) != 0 {
		return "", sum, errors.New("not a seal")
	}
	if len(lines[2]) != hex.EncodedLen(len(sum)) {
		return "", sum, errors.New("not a seal's hash")
	}
	if _, err := hex.Decode(sum[:], lines[2]); err != nil {
		return "", sum, err
	}
	file = filepath.FromSlash(string(lines[1]))
	return file, sum, checkCodeFile(file)
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
		return sum, errors.Join(err, fmt.Errorf("%s is no file of compiled code", name))
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

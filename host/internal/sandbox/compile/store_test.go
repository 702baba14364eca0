package compile

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
)

// The host's process compiles nothing: if wazero does not find the code, it must not compile either.
func TestLoadNeverCompiles(t *testing.T) {
	c := newCompiler(t, Options{Dir: t.TempDir(), Command: compilerCommand()})
	load := func() error {
		r := c.Runtime(t.Context())
		defer r.Close(t.Context())
		return c.load("name", 1<<20, func(ctx context.Context, _ *Facts, module []byte, _ int64) error {
			m, err := Module(ctx, r, module)
			if err == nil {
				_ = m.Close(t.Context())
			}
			return err
		})
	}
	if err := load(); !errors.Is(err, errNotLoaded) {
		t.Errorf("loading what is not there: %v", err)
	}
	// A form that claims to have code under a name for which wazero does not look.
	stage, unstage, err := c.store.stage()
	if err != nil {
		t.Fatal(err)
	}
	defer unstage()
	f, whole := prepared(t, testguest.Counter("c"))
	code, err := compileForm(t.Context(), f, whole, stage)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(filepath.Dir(code), strings.Repeat("0a", 32))
	if err := errors.Join(os.Rename(filepath.Join(stage, code), filepath.Join(stage, other)),
		c.store.install("name", stage, other)); err != nil {
		t.Fatal(err)
	}
	if err := load(); !errors.Is(err, errNotLoaded) {
		t.Errorf("loading what has another name: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(c.store.dir, "wazero-*", "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("there is %q, %v", left, err)
	}
}

// Damaged code on disk is not executed, but compiled again.
func TestDamagedCode(t *testing.T) {
	dir := t.TempDir()
	module := testguest.Counter("c")
	run := func() int64 {
		t.Helper()
		all := newCompiler(t, Options{Dir: dir})
		if err := compileWith(t, all, module, quick); err != nil {
			t.Fatal(err)
		}
		return all.compilations.Load()
	}
	if n := run(); n != 1 {
		t.Fatalf("compiled %d times at first", n)
	}
	find := func(pattern string) string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		return files[0]
	}
	code, form, seal := find("wazero-*/*"), find("forms/*"), find("seals/*")
	change := func(file string, f func([]byte) []byte) {
		t.Helper()
		b, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, f(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		damage func()
	}{
		{"code cut", func() { change(code, func(b []byte) []byte { return b[:len(b)/2] }) }},
		{"code empty", func() { change(code, func([]byte) []byte { return nil }) }},
		{"a bit of the code flipped", func() { change(code, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) }},
		{"the number of functions flipped",
			func() { change(code, func(b []byte) []byte { b[7+int(b[6])+3] = 0x7f; return b }) }},
		{"code appended to", func() { change(code, func(b []byte) []byte { return append(b, 0) }) }},
		{"code gone", func() { _ = os.Remove(code) }},
		{"form cut", func() { change(form, func(b []byte) []byte { return b[:len(b)/2] }) }},
		{"form empty", func() { change(form, func([]byte) []byte { return nil }) }},
		{"a bit of the form flipped", func() { change(form, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) }},
		{"form gone", func() { _ = os.Remove(form) }},
		{"form far too large", func() {
			if err := os.Truncate(form, maxForm(int64(len(module)))+1); err != nil {
				t.Fatal(err)
			}
		}},
		{"a form of an earlier version, sealed", func() {
			old := []byte("bulkhead form 0\n")
			change(form, func([]byte) []byte { return old })
			change(seal, func(b []byte) []byte {
				s, err := parseSeal(b)
				if err != nil {
					t.Fatal(err)
				}
				s.form = sha256.Sum256(old)
				return appendSeal(nil, s)
			})
		}},
		{"code without a seal", func() { _ = os.Remove(seal) }},
		{"seal cut", func() { change(seal, func(b []byte) []byte { return b[:len(b)-1] }) }},
		{"seal empty", func() { change(seal, func([]byte) []byte { return nil }) }},
		{"seal of another file", func() {
			change(seal, func([]byte) []byte { return appendSeal(nil, sealOf("../"+filepath.Base(seal))) })
		}},
		{"code of another version", func() {
			other := filepath.Join(dir, "wazero-v0.0.0-other", filepath.Base(code))
			if err := errors.Join(os.MkdirAll(filepath.Dir(other), 0o700), os.Rename(code, other)); err != nil {
				t.Fatal(err)
			}
			sum, err := hashFile(other)
			if err != nil {
				t.Fatal(err)
			}
			change(seal, func(b []byte) []byte {
				s, err := parseSeal(b)
				if err != nil {
					t.Fatal(err)
				}
				s.file, s.code = "wazero-v0.0.0-other/"+filepath.Base(code), sum
				return appendSeal(nil, s)
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.damage()
			if n := run(); n != 1 {
				t.Errorf("compiled %d times after the damage, want once", n)
			}
			if n := run(); n != 0 {
				t.Errorf("and %d times after that", n)
			}
		})
	}
}

// Only the owner has access to the directory of compiled code.
func TestCodeIsPrivate(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	newCompiler(t, Options{Dir: dir})
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "written to by others") {
		t.Errorf("a directory that is everybody's: %v", err)
	}
}

// Stages are removed when their process has ended, and in any case when they are old; others are not.
func TestLeftStagesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	c := newCompiler(t, Options{Dir: dir})
	stages := filepath.Join(dir, stageDir)
	young, old, left := filepath.Join(stages, "young"), filepath.Join(stages, "old"), filepath.Join(stages, "left")
	long := time.Now().Add(-2 * stageAge)
	if err := errors.Join(os.Mkdir(young, 0o700), os.Mkdir(old, 0o700), os.Chtimes(old, long, long),
		os.Mkdir(left, 0o700), os.WriteFile(filepath.Join(left, stageLock), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	used, unstage, err := c.store.stage() // it also sweeps
	if err != nil {
		t.Fatal(err)
	}
	defer unstage()
	newCompiler(t, Options{Dir: dir})
	want := []string{filepath.Base(used), "young"}
	if !canLock(t) {
		want = append(want, "left")
	}
	entries, err := os.ReadDir(stages)
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	slices.Sort(want)
	if err != nil || !slices.Equal(have, want) {
		t.Errorf("there are %q, want %q; %v", have, want, err)
	}
}

// canLock reports whether this system can tell that a stage is in use.
func canLock(t *testing.T) bool {
	f, err := lockStage(filepath.Join(t.TempDir(), stageLock), os.O_CREATE)
	if f != nil {
		_ = f.Close()
	}
	return !errors.Is(err, errors.ErrUnsupported)
}

func sealOf(file string) seal {
	return seal{file: file, code: [32]byte{1, 2, 3}, form: [32]byte{31: 4}}
}

func FuzzParseSeal(f *testing.F) {
	name := "wazero-v1.12.0-amd64-linux/" + strings.Repeat("0a", 32)
	f.Add(appendSeal(nil, sealOf(name)))
	f.Add(appendSeal(nil, sealOf("../../"+name)))
	f.Add(appendSeal(nil, sealOf("")))
	f.Add([]byte(sealHead + "\n\n\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSeal(b)
		if err != nil {
			return
		}
		if s.file != "" && (!filepath.IsLocal(s.file) || strings.Count(s.file, string(filepath.Separator)) != 1) {
			t.Errorf("it leads to %q", s.file)
		}
		again, err := parseSeal(appendSeal(nil, s))
		if err != nil || again != s {
			t.Errorf("%+v came back as %+v, %v", s, again, err)
		}
	})
}

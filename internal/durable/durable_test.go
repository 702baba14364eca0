package durable

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var errFault = errors.New("fault")

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func want(t *testing.T, path, content string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != content {
		t.Errorf("%s has %q, %v; want %q", path, got, err, content)
	}
}

// Until a file is whole, what had its name before is there; whatever fails, nothing else is left.
func TestWriteIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := WriteFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	half := func(f *os.File) error {
		_, err := f.WriteString("ne")
		want(t, path, "old")
		return errors.Join(err, errFault)
	}
	if named, err := Write(path, half, Replace); named || !errors.Is(err, errFault) {
		t.Errorf("a file that could not be written: named %v, %v", named, err)
	}
	want(t, path, "old")
	whole := func(f *os.File) error {
		_, err := f.WriteString("new")
		return err
	}
	if named, err := Write(path, whole, func(string, string) error { return errFault }); named ||
		!errors.Is(err, errFault) {
		t.Errorf("a file that got no name: named %v, %v", named, err)
	}
	want(t, path, "old")
	if named, err := Write(path, whole, Keep); named || !errors.Is(err, os.ErrExist) {
		t.Errorf("a file whose name was taken: named %v, %v", named, err)
	}
	want(t, path, "old")
	if got := names(t, dir); !slices.Equal(got, []string{"file"}) {
		t.Errorf("there are %q", got)
	}
	if named, err := Write(path, whole, Replace); !named || err != nil {
		t.Errorf("named %v, %v", named, err)
	}
	want(t, path, "new")
	other := filepath.Join(dir, "other")
	if named, err := Write(other, whole, Keep); !named || err != nil {
		t.Errorf("named %v, %v", named, err)
	}
	want(t, other, "new")
	if info, err := os.Stat(other); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"file", "other"}) {
		t.Errorf("there are %q", got)
	}
}

// The file is synced before it gets its name, and has its name although the directory cannot be synced.
func TestNamedWithoutTheDirectorySynced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	named, err := Write(path, func(f *os.File) error { _, err := f.WriteString("x"); return err },
		func(from, to string) error {
			return errors.Join(os.Rename(from, to), os.Rename(dir, dir+".gone")) // so that it is not found
		})
	if !named || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("named %v, %v", named, err)
	}
}

func TestRemoveLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*?\\")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "a.1" + suffix, "a.2" + suffix, "b.3" + suffix} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveLeftOf(filepath.Join(dir, "a")); err != nil {
		t.Error(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"a", "b.3" + suffix}) {
		t.Errorf("there are %q", got)
	}
	if err := RemoveLeft(dir); err != nil {
		t.Error(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"a"}) {
		t.Errorf("there are %q", got)
	}
}

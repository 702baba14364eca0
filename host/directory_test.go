package host_test

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// A directory in which no host can run is refused with that reason, and nothing is created in it or beside
// it.
func TestADirectoryThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(in("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"dangling": in("nowhere"), "circle": "circle"} {
		if err := os.Symlink(to, in(name)); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]string{
		in("file"): "it is a file", in("dangling"): "it is a link to " + in("nowhere") + ", which does not exist",
		in("file/below"): "not a directory", in("circle"): "too many levels",
	}
	if runtime.GOOS == "linux" {
		cases["/proc"] = "nothing can be written in it: no such file" // no file can be created there
		cases["/proc/nope"] = "it cannot be made: no such file"
	}
	if os.Geteuid() != 0 { // root may do everything
		if err := os.Mkdir(in("closed"), 0o500); err != nil {
			t.Fatal(err)
		}
		cases[in("closed")] = "nothing can be written in it: permission denied"
	}
	before := entries(t, dir)
	for path, want := range cases {
		h, err := host.Open(t.Context(), host.Options{Dir: path, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Errorf("a host runs in %s", path)
			_ = h.Close(t.Context())
			continue
		}
		if text := err.Error(); service.KindOf(err) != service.KindInvalid ||
			!strings.Contains(text, "the data directory "+path+" cannot be used: ") || !strings.Contains(text, want) {
			t.Errorf("%s is refused with %v, want %s", path, err, want)
		}
	}
	if after := entries(t, dir); after != before {
		t.Errorf("in the directory are %s, and were %s", after, before)
	}
}

// A directory that another host uses is not changed, even if something is wrong in it.
func TestTheDirectoryIsLockedFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() (*host.Host, error) {
		return host.Open(t.Context(), host.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	}
	h, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "cache")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); service.KindOf(err) != service.KindUnavailable ||
		!strings.Contains(err.Error(), "another process uses this data directory") {
		t.Errorf("a second host: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cache")); err == nil {
		t.Error("the second host has made something in the directory")
	}
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h, err = open(); err != nil {
		t.Fatalf("after the first has closed: %v", err)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// entries are the paths of everything in a directory.
func entries(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

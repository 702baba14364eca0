package compile

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Machine code is counted for its module. It is removed when the module is not stored and the code is old. A
// file of two entries stays while one of them does.
func TestCodeIsCollected(t *testing.T) {
	dir := t.TempDir()
	c := newCompiler(t, Options{Dir: dir})
	put := func(name, content string, age time.Duration) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := func(n byte) string {
		return "wazero-v1-amd64-linux/" + strings.Repeat(hex.EncodeToString([]byte{n}), 32)
	}
	entry := func(module, code byte, age time.Duration) (seal, machine string) {
		d := service.Digest{module}
		name := hex.EncodeToString(d[:]) + "-0123"
		machine = put(file(code), strings.Repeat("x", 1000), age)
		put("forms/"+name, strings.Repeat("f", 100), age)
		return put("seals/"+name, "bulkhead code 2\n"+file(code)+"\nsum\nsum\n", age), machine
	}
	const day, old = 24 * time.Hour, 48 * time.Hour
	seal1, code1 := entry(1, 1, old)       // stored
	seal2, code2 := entry(2, 2, old)       // not stored
	seal3, code3 := entry(3, 3, time.Hour) // not stored, and young
	seal4, _ := entry(4, 1, old)           // not stored, with the code of the first
	unsealed, young := put(file(9), "left by a crash", old), put(file(8), "just written", time.Minute)
	garbage := put("seals/garbage", "no seal", old)
	other := put("other", "not ours", old)

	sizes, err := c.CodeBytes()
	if err != nil || sizes[service.Digest{1}] < 1100 || sizes[service.Digest{2}] < 1100 ||
		sizes[service.Digest{}] != int64(len("no seal")) {
		t.Fatalf("%v, %v", sizes, err)
	}
	freed, err := c.CollectCode(time.Now().Add(-day), func(d service.Digest) bool { return d == service.Digest{1} })
	if err != nil || freed < 1100+100 {
		t.Errorf("%d bytes were given back, %v", freed, err)
	}
	there := func(want bool, paths ...string) {
		t.Helper()
		for _, path := range paths {
			if _, err := os.Stat(path); (err == nil) != want {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	there(true, seal1, code1, seal3, code3, young, other)
	there(false, seal2, code2, seal4, unsealed, garbage)

	// However soon code may be removed, the result of a recent compilation is not touched.
	if _, err := c.CollectCode(time.Now(), func(service.Digest) bool { return false }); err != nil {
		t.Error(err)
	}
	there(true, seal3, code3, young)
	there(false, seal1, code1)
	if err := c.RemoveCode(service.Digest{3}); err != nil {
		t.Error(err)
	}
	there(true, young)
	there(false, seal3, code3)
}

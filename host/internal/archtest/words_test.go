package archtest

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// strange are words about where the tree was written, which do not belong into it. They are assembled here so
// that this file does not contain them.
var strange = []*regexp.Regexp{
	regexp.MustCompile(`\.\./` + `shared`),
	regexp.MustCompile(`\bshared/` + `[A-Z]`),
	regexp.MustCompile(`/wo` + `rk/`),
	regexp.MustCompile(`/tmp/` + `bh\b`),
	regexp.MustCompile(`(?i)\bthis ` + `session\b`),
	regexp.MustCompile(`(?i)\bissue ` + `#?\d`),
	regexp.MustCompile(`\b(DESIGN|STYLE|THREATS|CONTRACT|TOOLCHAINS)` + `\.md\b`),
	regexp.MustCompile(`\bDESIGN ` + `section`),
}

func TestFilesSpeakOfThemselves(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	walk(t, func(name string, d fs.DirEntry) {
		if !d.Type().IsRegular() || name == ".git" { // which is a file in a linked work tree
			return
		}
		text, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text, 0) >= 0 {
			return // not text
		}
		for _, r := range strange {
			if at := r.FindIndex(text); at != nil {
				t.Errorf("%s:%d says %q, which means nothing to who reads the tree", name,
					1+bytes.Count(text[:at[0]], []byte("\n")), text[at[0]:at[1]])
			}
		}
	})
}

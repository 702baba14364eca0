//go:build unix

package compile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Machine code is not taken from a directory of another user, as it would be executed.
func TestCodeOfAnotherUserIsNotRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	if err := makePrivate(dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, other := ownedByOther(info, os.Geteuid()); other {
		t.Error("one's own directory is another's")
	}
	if os.Geteuid() != 0 {
		if uid, other := ownedByOther(info, os.Geteuid()+1); !other || int(uid) != os.Geteuid() {
			t.Errorf("the directory of %d is not another's: %d", os.Geteuid(), uid)
		}
		return
	}
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if err := makePrivate(dir); err == nil || !strings.Contains(err.Error(), "12345") {
		t.Errorf("a directory of another user: %v", err)
	}
}

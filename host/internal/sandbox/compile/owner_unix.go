//go:build unix

package compile

import (
	"io/fs"
	"syscall"
)

// ownedByOther reports whether a file belongs to neither the user nor root, and to whom.
func ownedByOther(info fs.FileInfo, user int) (uid uint32, other bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return s.Uid, s.Uid != uint32(user) && s.Uid != 0
}

//go:build linux || darwin || freebsd

package storage

import (
	"os"
	"syscall"
)

// diskBytes is the size of the disk of a directory, and the room that is left on it for
// this user.
func diskBytes(dir string) (size, free uint64, known bool, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, false, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	// The types of the fields differ between systems; FreeBSD's Bavail may be negative.
	return uint64(s.Blocks) * uint64(s.Bsize), uint64(max(int64(s.Bavail), 0)) * uint64(s.Bsize), true, nil
}

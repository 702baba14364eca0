//go:build linux || darwin || freebsd

package badgerengine

import (
	"os"
	"syscall"
)

// freeBytes is the room that is left on the disk of a directory, for this user.
func freeBytes(dir string) (free uint64, known bool, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, false, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	// The types of the fields differ between systems; FreeBSD's Bavail may be negative.
	return uint64(max(int64(s.Bavail), 0)) * uint64(s.Bsize), true, nil
}

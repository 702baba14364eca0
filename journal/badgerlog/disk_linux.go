package badgerlog

import (
	"io/fs"
	"syscall"
)

// onDisk is how many bytes of the disk a file takes.
func onDisk(info fs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Blocks * 512 // whatever the file system's blocks are: stat(2)
	}
	return info.Size()
}

package badgerengine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// syncData syncs the content of a file, also what was written to it through maps.
func syncData(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// punch gives the room of a part of a file back. It reads as zeros then.
func punch(f *os.File, from, size int64) error {
	const keepSize, punchHole = 1, 2 // FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE of fallocate(2)
	for {
		if err := syscall.Fallocate(int(f.Fd()), keepSize|punchHole, from, size); !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fallocate", err)
		}
	}
}

// nextData returns where the first data are at or behind a place of a file, its size if only
// holes are.
func nextData(f *os.File, from, size int64) (int64, error) {
	const seekData = 3 // SEEK_DATA of lseek(2)
	at, err := f.Seek(from, seekData)
	if errors.Is(err, syscall.ENXIO) {
		return size, nil
	}
	return at, err
}

// onDisk is how many bytes of the disk a file takes.
func onDisk(info fs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Blocks * 512 // whatever the file system's blocks are: stat(2)
	}
	return info.Size()
}

// canPunch tries whether the file system of a directory has holes.
func canPunch(dir string) bool {
	path := filepath.Join(dir, "holes")
	defer func() { _ = os.Remove(path) }()
	if os.WriteFile(path, make([]byte, 2*pageBytes), 0o600) != nil {
		return false
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return punch(f, 0, pageBytes) == nil
}

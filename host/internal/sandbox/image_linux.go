package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// imageFile is the memory of an image in a file without a name, which the kernel
// keeps as long as it is open or mapped. It is sealed: nobody writes to it again.
type imageFile struct {
	fd   int
	size int
}

// newImageFile writes an image. Runs of zeros become holes.
func newImageFile(b []byte) (f imageFile, err error) {
	fd, err := unix.MemfdCreate("bulkhead-image", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return f, os.NewSyscallError("memfd_create", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err := unix.Ftruncate(fd, int64(len(b))); err != nil {
		return f, os.NewSyscallError("ftruncate", err)
	}
	const piece = 64 << 10
	for at := 0; at < len(b); at += piece {
		p := b[at:min(at+piece, len(b))]
		p = p[:usedBytes(p)]
		for off := 0; off < len(p); {
			n, err := unix.Pwrite(fd, p[off:], int64(at+off))
			if err != nil && !errors.Is(err, unix.EINTR) {
				return f, os.NewSyscallError("pwrite", err)
			}
			off += max(n, 0)
		}
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return f, os.NewSyscallError("fcntl", err)
	}
	return imageFile{fd: fd, size: len(b)}, nil
}

func (f *imageFile) close() {
	if f.fd > 0 {
		_ = unix.Close(f.fd)
		f.fd = -1
	}
}

// mapped is address space of the kernel's:
//
//	0           file        usable            limit
//	| the image | zeros, written | not usable |
//
// What is usable is private: a page is copied, or made, when it is first written to.
type mapped struct {
	base   unsafe.Pointer
	limit  uint64
	usable uint64
	shown  uint64 // bytes of it that the image's file is behind
}

// mappingWorks reports whether this system has what images need.
func mappingWorks() error {
	f, err := newImageFile(make([]byte, 4<<10))
	if err != nil {
		return err
	}
	defer f.close()
	s, err := reserve(pageBytes)
	if err != nil {
		return err
	}
	defer s.release()
	_, err = s.show(&image{size: pageBytes, file: f})
	return err
}

// reserve takes address space. It costs no memory until it is used.
func reserve(limit uint64) (space, error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(limit), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserving %d bytes of address space: %w", limit, os.NewSyscallError("mmap", err))
	}
	return &mapped{base: p, limit: limit}, nil
}

func (m *mapped) grow(size uint64) ([]byte, error) {
	if size > m.limit {
		return nil, fmt.Errorf("a memory of %d bytes in a space of %d", size, m.limit)
	}
	if size > m.usable {
		fresh := unsafe.Slice((*byte)(unsafe.Add(m.base, m.usable)), size-m.usable)
		if err := unix.Mprotect(fresh, unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return nil, os.NewSyscallError("mprotect", err)
		}
		m.usable = size
	}
	return m.slice(size), nil
}

// slice is the first size bytes. A memory of none still has an address.
func (m *mapped) slice(size uint64) []byte {
	return unsafe.Slice((*byte)(m.base), m.limit)[:size:size]
}

func (m *mapped) show(i *image) ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.closed:
		return nil, errors.New("the program is closed")
	case m.usable == 0:
		if n := uint64(i.file.size); n > 0 {
			_, err := unix.MmapPtr(i.file.fd, 0, m.base, uintptr(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
			if err != nil {
				return nil, os.NewSyscallError("mmap", err)
			}
			m.usable, m.shown = n, n
		}
		return m.grow(i.size)
	case m.usable != i.size || m.shown != uint64(i.file.size):
		return nil, fmt.Errorf("a memory of %d bytes is not in the place of an image of %d", m.usable, i.size)
	}
	// The pages that were written to go; the file, or zeros, are behind them again.
	// In pieces, as it takes a millisecond for a few thousand of them.
	all := m.slice(m.usable)
	for at := 0; at < len(all); at += givenBack {
		if at > 0 {
			runtime.Gosched()
		}
		if err := unix.Madvise(all[at:min(at+givenBack, len(all))], unix.MADV_DONTNEED); err != nil {
			return nil, os.NewSyscallError("madvise", err)
		}
	}
	return all, nil
}

// givenBack is how much memory is given back to the system at once.
const givenBack = 1 << 20

func (m *mapped) release() {
	// It fails for arguments that were never mapped only.
	_ = unix.MunmapPtr(m.base, uintptr(m.limit))
	m.base = nil
}

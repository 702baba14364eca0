package pages

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Arena is the backing for systems that can map images. It keeps all images of a host in one anonymous file
// in memory, so that a thousand services do not need a thousand descriptors. Each image has its own range of
// the file, and memories map that range privately: a guest writes to its own copy of a page. A freed range
// becomes a hole and is never used again: a host does not run out of offsets.
type Arena struct {
	mu  sync.RWMutex // guards all below; read-locked while the file is in use
	fd  int          // -1 after close, as another file may get the number
	end int64        // offset of the next image
}

// NewArena opens an [Arena], or returns what this system lacks.
func NewArena() (*Arena, error) {
	fd, err := unix.MemfdCreate("bulkhead-images", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	a := &Arena{fd: fd}
	// A file that cannot shrink cannot be truncated under a memory that maps it.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), a.Close())
	}
	if err := a.try(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// try maps a small image, to see that all steps work on this system.
func (a *Arena) try() error {
	m, err := a.Keep([]byte{1})
	if err != nil {
		return err
	}
	defer m.Drop()
	s, err := a.Reserve(guestPage)
	if err != nil {
		return err
	}
	defer s.Release()
	b, err := s.Show(m, guestPage)
	if err == nil && (b[0] != 1 || b[1] != 0) {
		err = errors.New("a mapped image is not what was stored")
	}
	return err
}

// Close implements Backing.
func (a *Arena) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fd < 0 {
		return nil
	}
	err := unix.Close(a.fd)
	a.fd = -1
	return os.NewSyscallError("close", err)
}

// Bytes returns how much of the machine's memory the images take.
func (a *Arena) Bytes() (int64, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var s unix.Stat_t
	if err := unix.Fstat(a.fd, &s); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return s.Blocks * 512, nil
}

// ImageBytes implements Backing: the size rounded up to whole pages of the system.
func (a *Arena) ImageBytes(used int) int64 {
	page := int64(unix.Getpagesize())
	return (int64(used) + page - 1) / page * page
}

// place is the range of an image in the arena.
type place struct {
	arena *Arena
	at    int64
	size  int64 // whole pages; the rest of the last one is zero
}

// Keep implements Backing. Runs of zeros become holes.
func (a *Arena) Keep(b []byte) (Stored, error) {
	a.mu.Lock()
	p := place{arena: a, at: a.end, size: a.ImageBytes(len(b))}
	err := os.NewSyscallError("ftruncate", unix.Ftruncate(a.fd, p.at+p.size))
	if err == nil {
		a.end += p.size
	}
	a.mu.Unlock()
	if err != nil {
		return nil, err
	}
	const piece = 64 << 10
	for at := 0; at < len(b); at += piece {
		part := b[at:min(at+piece, len(b))]
		part = part[:Used(part)]
		for off := 0; off < len(part); {
			n, err := a.write(part[off:], p.at+int64(at+off))
			if err != nil && !errors.Is(err, unix.EINTR) {
				p.Drop()
				return nil, os.NewSyscallError("pwrite", err)
			}
			off += max(n, 0)
		}
	}
	return p, nil
}

func (a *Arena) write(b []byte, at int64) (int, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return unix.Pwrite(a.fd, b, at)
}

// show maps n bytes of the file at base, copy-on-write.
func (a *Arena) show(at int64, base unsafe.Pointer, n uint64) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, err := unix.MmapPtr(a.fd, at, base, uintptr(n), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return err
}

// Drop implements Stored.
func (p place) Drop() {
	p.arena.mu.RLock()
	defer p.arena.mu.RUnlock()
	if p.size > 0 && p.arena.fd >= 0 {
		// This fails only for invalid arguments. If the arena is closed, its content has gone.
		_ = unix.Fallocate(p.arena.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, p.at, p.size)
	}
}

// mapped is address space of the kernel. It is reserved up to the limit at the start, so that the memory
// never moves:
//
//	0           file        usable            limit
//	| the image | zeros, written | not usable |
//
// The usable part is private: a page is copied, or created, at its first write. These are at most three
// mappings.
type mapped struct {
	base   unsafe.Pointer
	limit  uint64
	usable uint64
	shown  uint64 // bytes that map the image's file
}

// Reserve implements Backing. It reserves address space. It takes no memory until it is used.
func (a *Arena) Reserve(limit uint64) (Space, error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(limit), unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserving %d bytes of address space: %w", limit, os.NewSyscallError("mmap", err))
	}
	return &mapped{base: p, limit: limit}, nil
}

// Held implements Space. It also counts pages that have not been written to: a guest may write to them at any
// moment, and nobody can refuse it then.
func (m *mapped) Held(size uint64) uint64 { return size }

// Grow implements Space.
func (m *mapped) Grow(size uint64) ([]byte, error) {
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

// slice returns the first size bytes. An empty memory still has an address.
func (m *mapped) slice(size uint64) []byte {
	return unsafe.Slice((*byte)(m.base), m.limit)[:size:size]
}

// Show implements Space.
func (m *mapped) Show(image Stored, size uint64) ([]byte, error) {
	at := image.(place)
	switch {
	case m.usable == 0:
		if n := uint64(at.size); n > 0 {
			if err := at.arena.show(at.at, m.base, n); err != nil {
				return nil, os.NewSyscallError("mmap", err)
			}
			m.usable, m.shown = n, n
		}
		return m.Grow(size)
	case m.usable != size || m.shown != uint64(at.size):
		return nil, fmt.Errorf("a memory of %d bytes is not in the place of an image of %d", m.usable, size)
	}
	// Discard the pages that were written to, so that the file, or zeros, appear again. Do it in pieces, as a
	// few thousand pages take a millisecond.
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

// givenBack is how much memory is given back to the system at once, in bytes.
const givenBack = 1 << 20

// Release implements Space.
func (m *mapped) Release() {
	// This fails only for ranges that were never mapped.
	_ = unix.MunmapPtr(m.base, uintptr(m.limit))
	m.base = nil
}

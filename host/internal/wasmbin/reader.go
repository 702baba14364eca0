package wasmbin

import (
	"fmt"
	"unicode/utf8"
)

// Error says where and how a binary breaks the format.
type Error struct {
	Offset  int    // in bytes from the start of the module
	Section string // the section of the offset; "header" before the first
	Message string // what was found and what is expected
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("offset %d, %s: %s", e.Offset, e.Section, e.Message)
}

// reader reads values from a window of the module. After the first failure every value is zero, so
// that callers check once for each loop, not for each value.
type reader struct {
	b       []byte
	at      int // offset of the next byte
	end     int // end of the window
	section string
	err     *Error
}

// fail records the first failure, with its offset.
func (r *reader) fail(at int, format string, args ...any) {
	if r.err == nil {
		r.err = &Error{Offset: at, Section: r.section, Message: fmt.Sprintf(format, args...)}
		r.at = r.end // ends loops over the rest
	}
}

func (r *reader) left() int { return r.end - r.at }

func (r *reader) u8(what string) byte {
	if r.at >= r.end {
		r.fail(r.at, "ends before %s", what)
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

// u32 reads an unsigned LEB128 number of at most 32 bits: 5 bytes, of which the last has 4 bits.
func (r *reader) u32(what string) uint32 {
	start := r.at
	var v uint32
	for shift := 0; ; shift += 7 {
		if r.at >= r.end {
			r.fail(r.at, "ends inside %s", what)
			return 0
		}
		c := r.b[r.at]
		r.at++
		if shift == 28 {
			if c >= 0x80 {
				r.fail(start, "%s is a LEB128 number of more than 5 bytes", what)
				return 0
			}
			if c > 0x0f {
				r.fail(start, "%s overflows 32 bits", what)
				return 0
			}
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// u64 reads an unsigned LEB128 number of at most 64 bits.
func (r *reader) u64(what string) uint64 {
	start := r.at
	var v uint64
	for shift := 0; ; shift += 7 {
		if r.at >= r.end {
			r.fail(r.at, "ends inside %s", what)
			return 0
		}
		c := r.b[r.at]
		r.at++
		if shift == 63 && c > 1 {
			r.fail(start, "%s is a LEB128 number that overflows 64 bits", what)
			return 0
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// signed reads a signed LEB128 number of the given width in bits. The unused bits of its last byte
// must repeat the sign.
func (r *reader) signed(bits int, what string) int64 {
	start := r.at
	var v int64
	for shift := 0; ; shift += 7 {
		if r.at >= r.end {
			r.fail(r.at, "ends inside %s", what)
			return 0
		}
		c := r.b[r.at]
		r.at++
		v |= int64(c&0x7f) << shift
		if rest := bits - shift; rest <= 7 {
			if c >= 0x80 {
				r.fail(start, "%s is a LEB128 number of more than %d bytes", what, (bits+6)/7)
				return 0
			}
			// The sign bit and all bits above it: 8-rest bits of the 7.
			if top := c >> (rest - 1); top != 0 && top != 1<<(8-rest)-1 {
				r.fail(start, "%s overflows %d bits", what, bits)
				return 0
			}
		}
		if c < 0x80 {
			if used := shift + 7; c&0x40 != 0 && used < 64 {
				v |= -1 << used
			}
			return v
		}
	}
}

// count reads the number of members of a vector, each of at least size bytes. It refuses a number that
// the rest of the window cannot hold, so that callers may allocate by it.
func (r *reader) count(what string, size int, limit int) int {
	start := r.at
	n := r.u32("the number of " + what)
	if r.err != nil {
		return 0
	}
	if int64(n)*int64(size) > int64(r.left()) {
		r.fail(start, "%d %s do not fit into the %d bytes that remain", n, what, r.left())
		return 0
	}
	if limit > 0 && int64(n) > int64(limit) {
		r.fail(start, "%d %s; this host accepts %d", n, what, limit)
		return 0
	}
	return int(n)
}

// bytes reads n bytes, as a view.
func (r *reader) bytes(n uint32, what string) []byte {
	if int64(n) > int64(r.left()) {
		r.fail(r.at, "%s has %d bytes, but %d remain", what, n, r.left())
		return nil
	}
	v := r.b[r.at : r.at+int(n) : r.at+int(n)]
	r.at += int(n)
	return v
}

// name reads a name, which must be UTF-8. The limit keeps error messages and tables of names small.
func (r *reader) name(what string, limit int) string {
	start := r.at
	v := r.bytes(r.u32("the length of "+what), what)
	if r.err != nil {
		return ""
	}
	if limit > 0 && len(v) > limit {
		r.fail(start, "%s has %d bytes; this host accepts %d", what, len(v), limit)
		return ""
	}
	if !utf8.Valid(v) {
		r.fail(start, "%s is not UTF-8", what)
		return ""
	}
	return string(v)
}

package wasmbin

// Writer builds a module from sections. Use [NewWriter]; the zero Writer is not valid.
type Writer struct{ b []byte }

// NewWriter starts a module, with capacity for size bytes.
func NewWriter(size int) *Writer {
	b := make([]byte, 0, size)
	b = append(b, magic...)
	return &Writer{b: append(b, coreVersion...)}
}

// Raw appends a complete section of another module, including id and size.
func (w *Writer) Raw(entry []byte) { w.b = append(w.b, entry...) }

// Section appends a section with the given content.
func (w *Writer) Section(id SectionID, content []byte) {
	w.b = append(w.b, byte(id))
	w.b = AppendU32(w.b, uint32(len(content)))
	w.b = append(w.b, content...)
}

// Custom appends a custom section.
func (w *Writer) Custom(name string, content []byte) {
	body := AppendName(make([]byte, 0, len(name)+len(content)+5), name)
	w.Section(SectionCustom, append(body, content...))
}

// Bytes returns the module so far.
func (w *Writer) Bytes() []byte { return w.b }

// AppendU32 appends an unsigned LEB128 number.
func AppendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// AppendS64 appends a signed LEB128 number. An s32 has the same form.
func AppendS64(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// AppendName appends a name with its length.
func AppendName(b []byte, s string) []byte {
	return append(AppendU32(b, uint32(len(s))), s...)
}

// AppendLimit appends the size of a memory or table of version 1 of the format.
func AppendLimit(b []byte, l Limit) []byte {
	if !l.HasMax {
		return AppendU32(append(b, 0), uint32(l.Min))
	}
	return AppendU32(AppendU32(append(b, 1), uint32(l.Min)), uint32(l.Max))
}

package metering

import (
	"cmp"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// segment is a data segment of the new module. All segments are passive.
type segment struct {
	init []byte
	at   []byte // code that pushes its destination; nil if the module's code applies it
}

// segmentGap is the longest run of zeros that is written out to join two data segments, in bytes. It
// is about what the host needs to keep another segment.
const segmentGap = 64

// initsPerFunction bounds the size of functions that apply data segments, as the time to compile a
// function grows faster than its size.
const initsPerFunction = 256

// planSetup makes active data segments passive, and writes the functions that apply them and call
// the start function.
func (r *rewriter) planSetup() error {
	m := r.m
	for _, s := range m.Sections {
		r.numbered = r.numbered || s.ID == wasmbin.SectionDataCount
	}
	r.dataCount = r.numbered
	active := 0
	for _, d := range m.Data {
		s := segment{init: m.Slice(d.Init)}
		if d.Mode == wasmbin.Active {
			at, err := r.offset(d.At)
			if err != nil {
				return err
			}
			s.at = at
			active++
		}
		r.data = append(r.data, s)
	}
	// A module whose code uses segment numbers has a data count section. Its segments stay
	// unchanged.
	if joined := joinSegments(m); joined != nil && !r.numbered {
		r.data, active = joined, len(joined)
	}
	r.setup = active > 0 || m.Start >= 0
	if !r.setup {
		return nil
	}
	r.dataCount = r.dataCount || active > 0
	return nil
}

// writeSetup writes the functions that apply the active data segments, and the function that calls
// them and the start function. Each of them charges before it does something, which is no longer
// than a step of a bulk instruction.
func (r *rewriter) writeSetup() {
	if !r.setup {
		return
	}
	for i, s := range r.data { // helpers come first
		if s.at != nil && len(s.init) > StepBytes {
			r.initHelper(uint32(i))
		}
	}
	add := func(body []byte) {
		r.setupFunctions = append(r.setupFunctions, addedFunction{body: append(body, byte(wasmbin.OpEnd)), typ: r.nop,
			name: ".setup"})
	}
	var units, size int64
	var body []byte
	inits := 0
	flush := func() {
		if inits > 0 {
			add(append(r.appendCheck(r.appendCharge([]byte{0}, units)), body...)) // 0: no locals
			body, units, size, inits = nil, 0, 0, 0
		}
	}
	for i, s := range r.data {
		if s.at == nil {
			continue
		}
		n := int64(len(s.init))
		large := n > StepBytes
		if inits == initsPerFunction || !large && size+n > StepBytes {
			flush()
		}
		inits++
		units += setupUnits
		body = append(body, s.at...)
		body = append(body, 0x41, 0, 0x41) // from its start, all of it
		body = wasmbin.AppendS64(body, n)
		if large { // the helper charges
			body = wasmbin.AppendU32(append(body, byte(wasmbin.OpCall)), r.trouble+1+uint32(r.initHelper(uint32(i))))
		} else {
			units += n / BytesPerUnit
			size += n
			body = append(wasmbin.AppendU32(append(body, 0xfc, 0x08), uint32(i)), 0)
		}
		body = wasmbin.AppendU32(append(body, 0xfc, 0x09), uint32(i))
	}
	flush()
	last := []byte{0}
	first := r.trouble + 1 + uint32(len(r.helpers))
	for i := range r.setupFunctions {
		last = wasmbin.AppendU32(append(last, byte(wasmbin.OpCall)), first+uint32(i))
	}
	if r.m.Start >= 0 {
		last = wasmbin.AppendU32(append(last, byte(wasmbin.OpCall)), r.function(uint32(r.m.Start)))
	}
	add(last)
}

// setupUnits is charged for each data segment that the setup applies, in addition to its bytes.
const setupUnits = 5

// offset returns a constant expression as code, without its end. An expression that is not constant
// must not become valid by being moved into a function, so it is an error.
func (r *rewriter) offset(expr wasmbin.Range) ([]byte, error) {
	var bad error
	err := r.m.WalkExpr(expr, func(in *wasmbin.Instr) {
		switch in.Op {
		case 0x41, 0x6a, 0x6b, 0x6c, wasmbin.OpEnd: // i32.const, add, sub, mul
		case wasmbin.OpGlobalGet:
			if !r.constantGlobal(in.Index) {
				bad = r.bad(in.Start, wasmbin.SectionData, "global %d is not constant", in.Index)
			}
		default:
			bad = r.bad(in.Start, wasmbin.SectionData,
				"the place of a data segment is not a constant expression of type i32")
		}
	})
	if err == nil {
		err = bad
	}
	b := r.m.Slice(expr)
	return b[: len(b)-1 : len(b)-1], err
}

// constantGlobal reports whether a constant expression may use a global: only imported, immutable
// ones.
func (r *rewriter) constantGlobal(index uint32) bool {
	imported := uint32(0)
	for _, x := range r.m.Imports {
		if x.Kind != wasmbin.ExternGlobal {
			continue
		}
		if imported == index {
			return !x.Mutable
		}
		imported++
	}
	return false
}

// dataSection returns the data section; all segments are passive.
func (r *rewriter) dataSection() []byte {
	size := 8
	for _, s := range r.data {
		size += len(s.init) + 8
	}
	b := wasmbin.AppendU32(make([]byte, 0, size), uint32(len(r.data)))
	for _, s := range r.data {
		b = wasmbin.AppendU32(append(b, 1), uint32(len(s.init)))
		b = append(b, s.init...)
	}
	return b
}

// joinSegments joins neighbouring segments. It returns nil if that is not possible or there are
// none. Go's linker splits its data at each run of zeros, into about 30,000 segments.
//
// Segments are joined only if no two overlap: then their order does not matter, and the zeros
// between them are written to memory that is zero already.
func joinSegments(m *wasmbin.Module) []segment {
	if len(m.Memories) != 1 {
		return nil
	}
	type piece struct {
		at   uint64
		data []byte
	}
	pieces := make([]piece, 0, len(m.Data))
	for _, d := range m.Data {
		at, ok := m.ConstI32(d.At)
		if d.Mode != wasmbin.Active || d.Memory != 0 || !ok {
			return nil
		}
		pieces = append(pieces, piece{uint64(at), m.Slice(d.Init)})
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return cmp.Compare(a.at, b.at) })
	joined := pieces[:0]
	for _, p := range pieces {
		if n := len(joined); n > 0 {
			last := &joined[n-1]
			end := last.at + uint64(len(last.data))
			if p.at < end {
				return nil
			}
			if p.at-end <= segmentGap {
				// the first append copies: Slice has no spare capacity
				last.data = append(last.data, make([]byte, p.at-end)...)
				last.data = append(last.data, p.data...)
				continue
			}
		}
		joined = append(joined, p)
	}
	segments := make([]segment, len(joined))
	for i, p := range joined {
		segments[i] = segment{init: p.data, at: wasmbin.AppendS64([]byte{0x41}, int64(int32(uint32(p.at))))}
	}
	return segments
}

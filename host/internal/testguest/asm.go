// Package testguest makes guests for tests: well-behaved ones, and ones that break every rule. It assembles
// them from WebAssembly instructions, so no toolchain is needed and each has a few hundred bytes.
// Production code does not import it.
package testguest

import (
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// Short names of value types, for signatures.
const (
	I32 = wasmbin.I32
	I64 = wasmbin.I64
	F64 = wasmbin.F64
)

// Types returns a list of value types.
func Types(t ...wasmbin.ValType) []wasmbin.ValType { return t }

// Builder assembles a module. Its zero value is ready. Add imports before functions, as imports have the
// first indexes.
type Builder struct {
	types    [][]byte
	imports  [][]byte
	funcs    []uint32
	bodies   [][]byte
	tables   [][]byte
	memories [][]byte
	globals  [][]byte
	exports  [][]byte
	elements [][]byte
	data     [][]byte
	custom   [][]byte
	start    int // function index + 1

	dataCount bool
}

func (b *Builder) typ(params, results []wasmbin.ValType) uint32 {
	t := []byte{0x60}
	for _, list := range [][]wasmbin.ValType{params, results} {
		t = wasmbin.AppendU32(t, uint32(len(list)))
		for _, v := range list {
			t = append(t, byte(v))
		}
	}
	for i, have := range b.types {
		if string(have) == string(t) {
			return uint32(i)
		}
	}
	b.types = append(b.types, t)
	return uint32(len(b.types) - 1)
}

// TypeIndex returns the index of a signature, for instructions that need it.
func (b *Builder) TypeIndex(params, results []wasmbin.ValType) uint32 { return b.typ(params, results) }

// ImportFunc adds an imported function and returns its index.
func (b *Builder) ImportFunc(module, name string, params, results []wasmbin.ValType) uint32 {
	x := wasmbin.AppendName(wasmbin.AppendName(nil, module), name)
	b.imports = append(b.imports, wasmbin.AppendU32(append(x, 0), b.typ(params, results)))
	return uint32(len(b.imports) - 1)
}

// ImportRaw adds an import of any kind, given its names and the encoded description.
func (b *Builder) ImportRaw(module, name string, description ...byte) {
	x := wasmbin.AppendName(wasmbin.AppendName(nil, module), name)
	b.imports = append(b.imports, append(x, description...))
}

// Func adds a function and returns its index, which is right if all imports are functions. The code is
// given without the final end. Locals come after the parameters.
func (b *Builder) Func(params, results, locals []wasmbin.ValType, code ...[]byte) uint32 {
	b.funcs = append(b.funcs, b.typ(params, results))
	body := wasmbin.AppendU32(nil, uint32(len(locals)))
	for _, t := range locals {
		body = append(body, 1, byte(t))
	}
	for _, c := range code {
		body = append(body, c...)
	}
	b.bodies = append(b.bodies, append(body, 0x0b))
	return uint32(len(b.imports) + len(b.funcs) - 1)
}

// RawBody replaces the body of the function that was added last: encoded declarations of locals, and code.
func (b *Builder) RawBody(body []byte) { b.bodies[len(b.bodies)-1] = body }

// Memory adds a memory of min pages, with a maximum if max is not 0.
func (b *Builder) Memory(min, max uint64) {
	b.memories = append(b.memories, wasmbin.AppendLimit(nil, wasmbin.Limit{Min: min, Max: max, HasMax: max > 0}))
}

// MemoryRaw adds a memory, given its encoded flags and sizes.
func (b *Builder) MemoryRaw(m ...byte) { b.memories = append(b.memories, m) }

// Table adds a table of functions.
func (b *Builder) Table(min uint64) {
	b.tables = append(b.tables, wasmbin.AppendLimit([]byte{byte(wasmbin.FuncRef)}, wasmbin.Limit{Min: min}))
}

// TableUpTo adds a table of functions that may grow to max elements.
func (b *Builder) TableUpTo(min, max uint64) {
	b.tables = append(b.tables, wasmbin.AppendLimit([]byte{byte(wasmbin.FuncRef)},
		wasmbin.Limit{Min: min, Max: max, HasMax: true}))
}

// Element fills table 0 from index 0 on.
func (b *Builder) Element(functions ...uint32) {
	e := append([]byte{0}, Code(I32Const(0), End())...)
	e = wasmbin.AppendU32(e, uint32(len(functions)))
	for _, f := range functions {
		e = wasmbin.AppendU32(e, f)
	}
	b.elements = append(b.elements, e)
}

// GlobalI32 adds a mutable global and returns its index.
func (b *Builder) GlobalI32(v int32) uint32 {
	b.globals = append(b.globals, append([]byte{byte(I32), 1}, Code(I32Const(v), End())...))
	return uint32(len(b.globals) - 1)
}

// GlobalRaw adds an encoded global.
func (b *Builder) GlobalRaw(g []byte) { b.globals = append(b.globals, g) }

// ElementRaw adds an encoded element segment.
func (b *Builder) ElementRaw(e ...byte) { b.elements = append(b.elements, e) }

// DataRaw adds an encoded data segment.
func (b *Builder) DataRaw(d []byte) { b.data = append(b.data, d) }

// DataCount adds a data count section, which a module needs if its code refers to data segments.
func (b *Builder) DataCount() { b.dataCount = true }

// Export adds an export.
func (b *Builder) Export(name string, kind wasmbin.ExternKind, index uint32) {
	b.exports = append(b.exports, wasmbin.AppendU32(append(wasmbin.AppendName(nil, name), byte(kind)), index))
}

// Data adds an active data segment.
func (b *Builder) Data(at uint32, bytes []byte) {
	d := append([]byte{0}, Code(I32Const(int32(at)), End())...)
	b.data = append(b.data, append(wasmbin.AppendU32(d, uint32(len(bytes))), bytes...))
}

// Passive adds a passive segment for memory.init, before all others.
func (b *Builder) Passive(bytes []byte) {
	b.DataCount()
	b.data = append([][]byte{append(wasmbin.AppendU32([]byte{1}, uint32(len(bytes))), bytes...)}, b.data...)
}

// Custom adds a custom section at the end.
func (b *Builder) Custom(name string, content []byte) {
	w := wasmbin.NewWriter(0)
	w.Custom(name, content)
	b.custom = append(b.custom, w.Bytes()[8:])
}

// Start makes a function the module's start function.
func (b *Builder) Start(function uint32) { b.start = int(function) + 1 }

// Bytes returns the module.
func (b *Builder) Bytes() []byte {
	w := wasmbin.NewWriter(1024)
	vector := func(id wasmbin.SectionID, items [][]byte) {
		if len(items) == 0 {
			return
		}
		content := wasmbin.AppendU32(nil, uint32(len(items)))
		for _, x := range items {
			content = append(content, x...)
		}
		w.Section(id, content)
	}
	vector(wasmbin.SectionType, b.types)
	vector(wasmbin.SectionImport, b.imports)
	var funcs, bodies [][]byte
	for i, t := range b.funcs {
		funcs = append(funcs, wasmbin.AppendU32(nil, t))
		bodies = append(bodies, append(wasmbin.AppendU32(nil, uint32(len(b.bodies[i]))), b.bodies[i]...))
	}
	vector(wasmbin.SectionFunction, funcs)
	vector(wasmbin.SectionTable, b.tables)
	vector(wasmbin.SectionMemory, b.memories)
	vector(wasmbin.SectionGlobal, b.globals)
	vector(wasmbin.SectionExport, b.exports)
	if b.start > 0 {
		w.Section(wasmbin.SectionStart, wasmbin.AppendU32(nil, uint32(b.start-1)))
	}
	vector(wasmbin.SectionElement, b.elements)
	if b.dataCount {
		w.Section(wasmbin.SectionDataCount, wasmbin.AppendU32(nil, uint32(len(b.data))))
	}
	vector(wasmbin.SectionCode, bodies)
	vector(wasmbin.SectionData, b.data)
	for _, c := range b.custom {
		w.Raw(c)
	}
	return w.Bytes()
}

// Code joins instructions.
func Code(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// Op returns an instruction without immediates, or a sequence of bytes.
func Op(ops ...byte) []byte { return ops }

func withIndex(op byte, i uint32) []byte { return wasmbin.AppendU32([]byte{op}, i) }

// I32Const and the functions below return one instruction each. I32Const pushes a number.
func I32Const(v int32) []byte { return wasmbin.AppendS64([]byte{0x41}, int64(v)) }

// I64Const pushes a number.
func I64Const(v int64) []byte { return wasmbin.AppendS64([]byte{0x42}, v) }

// Get pushes a local.
func Get(local uint32) []byte { return withIndex(0x20, local) }

// Set pops a local.
func Set(local uint32) []byte { return withIndex(0x21, local) }

// GlobalGet pushes a global.
func GlobalGet(global uint32) []byte { return withIndex(0x23, global) }

// GlobalSet pops a global.
func GlobalSet(global uint32) []byte { return withIndex(0x24, global) }

// Call calls a function.
func Call(function uint32) []byte { return withIndex(0x10, function) }

// Br branches out of that many blocks.
func Br(depth uint32) []byte { return withIndex(0x0c, depth) }

// BrIf branches if the top of the stack is not 0.
func BrIf(depth uint32) []byte { return withIndex(0x0d, depth) }

// BrTable branches by number; the last target is the default.
func BrTable(targets ...uint32) []byte {
	b := wasmbin.AppendU32([]byte{0x0e}, uint32(len(targets)-1))
	for _, t := range targets {
		b = wasmbin.AppendU32(b, t)
	}
	return b
}

func memory(op byte, align byte, offset uint32) []byte {
	return wasmbin.AppendU32([]byte{op, align}, offset)
}

// Load8 is i32.load8_u.
func Load8(offset uint32) []byte { return memory(0x2d, 0, offset) }

// Load16 is i32.load16_u.
func Load16(offset uint32) []byte { return memory(0x2f, 0, offset) }

// Load32 is i32.load.
func Load32(offset uint32) []byte { return memory(0x28, 0, offset) }

// Load64 is i64.load.
func Load64(offset uint32) []byte { return memory(0x29, 0, offset) }

// Store8 is i32.store8.
func Store8(offset uint32) []byte { return memory(0x3a, 0, offset) }

// Store16 is i32.store16.
func Store16(offset uint32) []byte { return memory(0x3b, 0, offset) }

// Store32 is i32.store.
func Store32(offset uint32) []byte { return memory(0x36, 0, offset) }

// Store64 is i64.store.
func Store64(offset uint32) []byte { return memory(0x37, 0, offset) }

// End ends a block.
func End() []byte { return []byte{0x0b} }

// Block returns a block without a result.
func Block(code ...[]byte) []byte { return Code([]byte{0x02, 0x40}, Code(code...), End()) }

// Loop returns a loop without a result.
func Loop(code ...[]byte) []byte { return Code([]byte{0x03, 0x40}, Code(code...), End()) }

// If returns a conditional without a result.
func If(code ...[]byte) []byte { return Code([]byte{0x04, 0x40}, Code(code...), End()) }

// Instructions without immediates.
var (
	Unreachable = Op(0x00)
	Return      = Op(0x0f)
	Drop        = Op(0x1a)
	MemorySize  = Op(0x3f, 0)
	MemoryGrow  = Op(0x40, 0)
	MemoryCopy  = Op(0xfc, 0x0a, 0, 0)
	MemoryFill  = Op(0xfc, 0x0b, 0)
	I32Eqz      = Op(0x45)
	I32Eq       = Op(0x46)
	I32GtU      = Op(0x4b)
	I32GeU      = Op(0x4f)
	I32Add      = Op(0x6a)
	I32Sub      = Op(0x6b)
	I32Mul      = Op(0x6c)
	I32DivU     = Op(0x6e)
	I32And      = Op(0x71)
	I32ShrU     = Op(0x76)
	I64Eqz      = Op(0x50)
	I64Eq       = Op(0x51)
	I64Add      = Op(0x7c)
	I64DivU     = Op(0x80)
	I64RemU     = Op(0x82)
	I64Or       = Op(0x84)
	I64Shl      = Op(0x86)
	I32Wrap     = Op(0xa7)
	I64Extend   = Op(0xad)
)

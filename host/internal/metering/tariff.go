package metering

import "github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"

// TariffVersion is the version of the tariff in TARIFF.md. A change of any charge,
// or of where charges are made, is a new version: outcomes of the past rest on it.
const TariffVersion = 1

// The charges by size, beyond the unit that each instruction costs. They are part
// of the tariff.
const (
	// BytesPerUnit is how many bytes memory.copy, memory.fill and memory.init move
	// for a unit. A copy beyond the caches takes about a tenth of a nanosecond a
	// byte, an ordinary instruction two to three tenths.
	BytesPerUnit = 4
	// UnitsPerElement is charged by table.copy, table.fill, table.init and table.grow.
	UnitsPerElement = 2
	// UnitsPerPage is charged by memory.grow for each page of 64 KiB, which the
	// operating system fills with zeros when it is first touched.
	UnitsPerPage = 16_384
)

// ShortPiece is the most that a piece which may or may not follow another one costs
// to be charged together with it, whether or not it follows. To charge it by
// itself would take about as long as to run it.
const ShortPiece = 8

// maxUnchecked is the most fuel that one path through a function is charged since
// its last check or call. Together with the limit of the stack, which bounds how
// many functions can be on their way back at once, it bounds how far below zero
// the counter gets: see TARIFF.md.
const maxUnchecked = 256

// maxLight is the most fuel that a function may cost that neither checks at its
// entry nor can call or loop.
const maxLight = 64

// costOf is what an instruction is charged, not counting its size. What only
// gives code its structure is no machine code, and costs nothing.
func costOf(op wasmbin.Op) int64 {
	switch op {
	case wasmbin.OpBlock, wasmbin.OpLoop, wasmbin.OpElse, wasmbin.OpEnd, wasmbin.OpNop:
		return 0
	}
	return 1
}

// scale says how an instruction is charged by the number on top of the stack.
type scale struct {
	multiply int64
	divide   int64 // a power of two
}

// scaleOf is the charge by size of an instruction; false if it has none.
func scaleOf(op wasmbin.Op) (scale, bool) {
	switch op {
	case wasmbin.OpMemoryCopy, wasmbin.OpMemoryFill, wasmbin.OpMemoryInit:
		return scale{1, BytesPerUnit}, true
	case wasmbin.OpTableCopy, wasmbin.OpTableFill, wasmbin.OpTableInit, wasmbin.OpTableGrow:
		return scale{UnitsPerElement, 1}, true
	case wasmbin.OpMemoryGrow:
		return scale{UnitsPerPage, 1}, true
	}
	return scale{}, false
}

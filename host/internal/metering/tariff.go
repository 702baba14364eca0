package metering

import "github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"

// TariffVersion is the version of the tariff in TARIFF.md. Every change of a charge, or of where
// charges are made, needs a new version: recorded outcomes depend on it.
const TariffVersion = 3

// Charges by size, in addition to the instruction itself. They are part of the tariff.
const (
	// BytesPerUnit is how many bytes memory.copy, memory.fill and memory.init move for one unit.
	// Copying outside of the caches takes about 0.1 ns for a byte, an ordinary instruction 0.2 to
	// 0.3 ns.
	BytesPerUnit = 4
	// UnitsPerElement is charged by table.copy, table.fill, table.init and table.grow.
	UnitsPerElement = 2
	// UnitsPerPage is charged by memory.grow for each page of 64 KiB, which the operating system
	// fills with zeros at its first use.
	UnitsPerPage = 16_384
	// UnitsPerExit is charged by memory.grow and table.grow for leaving the machine code. That takes
	// 26 and 43 ns; a guest executes about 7 units in a nanosecond.
	UnitsPerExit = 300
)

// Bulk instructions are executed in steps. Each step is charged before it is done. A step takes about
// ten microseconds, and ten times as long if the system has to allocate the memory first.
const (
	// StepBytes is the step of memory.copy, memory.fill and memory.init.
	StepBytes = 64 << 10
	// StepElements is the step of table.copy, table.fill, table.init and table.grow.
	StepElements = 4096
)

// ShortPiece is the maximum cost of a short piece. A short piece that may or may not follow another
// one is charged together with it, whether or not it follows: a charge of its own would take about
// as long as the piece.
const ShortPiece = 8

// QuickPiece is the same maximum for a piece after a long call, if it has quick instructions only.
// Each function on the stack can have a piece of this cost that is charged but not yet executed.
// Within the default limit of the stack these are about 16,000 functions, or 0.2 ms.
const QuickPiece = 32

// MaxPiece bounds the cost of the code from the first instruction of a piece to its last one,
// including other pieces in between. So it bounds what is charged before it is executed, at any
// place: see TARIFF.md.
const MaxPiece = 1000

// maxUnchecked is the maximum fuel that one path through a function may be charged since its last
// check or call.
const maxUnchecked = 256

// maxReturned is the maximum that a function may have been charged since a check when it returns: its
// caller continues from there.
const maxReturned = 64

// MaxLight is the maximum cost of a light function, and MaxLightBytes the maximum size of its code. A
// light function calls no function of the module, and has no loop and no charge by size. It does not
// check, and the pieces of its callers continue after a call of it.
const (
	MaxLight      = 64
	MaxLightBytes = 256
)

// costOf returns the charge of an instruction, without its size. Instructions that only give code its
// structure have no machine code, and cost nothing.
func costOf(op wasmbin.Op) int64 {
	switch op {
	case wasmbin.OpBlock, wasmbin.OpLoop, wasmbin.OpElse, wasmbin.OpEnd, wasmbin.OpNop:
		return 0
	case wasmbin.OpMemoryGrow, wasmbin.OpTableGrow:
		return 1 + UnitsPerExit
	}
	return 1
}

// quick reports whether an instruction takes at most about a nanosecond on every machine, whatever
// its operands are: it does not use the guest's memory, does not divide, and has no floats.
func quick(op wasmbin.Op) bool {
	switch {
	case op <= wasmbin.OpReturnCallIndirect, // control flow; what is called is charged by itself
		op == opDrop, op == opSelect,
		op >= wasmbin.OpLocalGet && op <= wasmbin.OpGlobalSet,
		op >= opI32Const && op <= opF64Const,
		op >= 0x45 && op <= 0x5a, // integer comparisons
		op >= 0x67 && op <= 0x6c, // i32: clz, ctz, popcnt, add, sub, mul
		op >= 0x71 && op <= 0x78, // and, or, xor, shifts, rotations
		op >= 0x79 && op <= 0x7e, // i64 likewise
		op >= 0x83 && op <= 0x8a,
		op == 0xa7, op == 0xac, op == 0xad, // i32.wrap_i64, i64.extend_i32
		op >= 0xc0 && op <= 0xc4: // sign extensions
		return true
	}
	return false
}

// isBulk reports whether an instruction is charged by size.
func isBulk(op wasmbin.Op) bool {
	switch op {
	case wasmbin.OpMemoryGrow, wasmbin.OpMemoryCopy, wasmbin.OpMemoryFill, wasmbin.OpMemoryInit,
		wasmbin.OpTableGrow, wasmbin.OpTableCopy, wasmbin.OpTableFill, wasmbin.OpTableInit:
		return true
	}
	return false
}

// More opcodes, in addition to those in the reader of modules.
const (
	opDrop     = 0x1a
	opSelect   = 0x1b
	opI32Const = 0x41
	opF64Const = 0x44
)

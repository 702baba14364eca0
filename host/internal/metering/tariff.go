package metering

import "github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"

// TariffVersion is the version of the tariff in TARIFF.md. A change of any charge,
// or of where charges are made, is a new version: outcomes of the past rest on it.
const TariffVersion = 3

// The charges by size, beyond what each instruction costs. They are part of the
// tariff.
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
	// UnitsPerExit is charged by memory.grow and table.grow for leaving the machine
	// code: it takes 26 and 43 ns, in which a guest executes some 7 units a nanosecond.
	UnitsPerExit = 300
)

// Bulk instructions work in steps, each of which is charged before it is done. A
// step takes some ten microseconds, and ten times as long if the system has to find
// the memory first.
const (
	// StepBytes is that of memory.copy, memory.fill and memory.init.
	StepBytes = 64 << 10
	// StepElements is that of table.copy, table.fill, table.init and table.grow.
	StepElements = 4096
)

// ShortPiece is the most that a piece which may or may not follow another one costs
// to be charged together with it, whether or not it follows. To charge it by
// itself would take about as long as to run it.
const ShortPiece = 8

// QuickPiece is the same for a piece behind a long call, if it has quick instructions
// only. Each function on the stack can have that much left to
// do that is charged already: some 16,000 functions, and so some 0.2 ms, within the
// default limit of the stack.
const QuickPiece = 32

// MaxPiece is the most that the code from the first instruction of a piece to its
// last one costs, that of other pieces in between included. So it bounds what is
// charged before it is executed, at any place: see TARIFF.md.
const MaxPiece = 1000

// maxUnchecked is the most fuel that one path through a function is charged since
// its last check or call.
const maxUnchecked = 256

// maxReturned is the most that a function has been charged, since a check, when it
// returns: the functions that it returns to go on from there.
const maxReturned = 64

// MaxLight is the most fuel that a light function costs, and MaxLightBytes the most
// bytes its code has: it calls none of the module's own, has no loop and no charge
// by size. It does not check, and its callers' pieces go on behind a call of it.
const (
	MaxLight      = 64
	MaxLightBytes = 256
)

// costOf is what an instruction is charged, not counting its size. What only
// gives code its structure is no machine code, and costs nothing.
func costOf(op wasmbin.Op) int64 {
	switch op {
	case wasmbin.OpBlock, wasmbin.OpLoop, wasmbin.OpElse, wasmbin.OpEnd, wasmbin.OpNop:
		return 0
	case wasmbin.OpMemoryGrow, wasmbin.OpTableGrow:
		return 1 + UnitsPerExit
	}
	return 1
}

// quick reports whether an instruction takes about a nanosecond at most on every
// machine, whatever it works on: it touches no memory of the guest, does not divide,
// and is about no floats.
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

// More opcodes, beside those that the reader of modules names.
const (
	opDrop     = 0x1a
	opSelect   = 0x1b
	opI32Const = 0x41
	opF64Const = 0x44
)

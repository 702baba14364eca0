package wasmbin

// Limits bound what [Parse] and [Module.CheckCode] accept, more tightly than the format itself. A
// field that is 0 does not bound anything.
//
// No default is higher than the limits of the WebAssembly JavaScript API, so every toolchain stays
// within those. Many are lower, a multiple of what guests of known toolchains need, because each of
// these numbers can make compiling take much time or memory.
type Limits struct {
	Types          int // signatures
	Params         int // of one signature
	Results        int // of one signature
	Imports        int
	Functions      int // defined by the module
	Tables         int
	TableElements  uint64 // initial, of one table
	Globals        int
	Exports        int
	Segments       int // data segments, and likewise element segments
	SegmentMembers int // of all element segments together
	Locals         int // declared by one function
	AllLocals      int // declared by all functions together
	BodyBytes      int // of one function
	BranchTargets  int // of one br_table
	Nesting        int // of blocks in one function
	NameBytes      int // of an import's, export's or custom section's name
	CustomSections int
}

// DefaultLimits returns the limits of the host. A Go guest of 3 MB has about 32,600 data segments,
// 5,000 functions and 300 types. Its nesting is some thousand, as the compiler opens a block for each
// place where a function can be resumed.
func DefaultLimits() Limits {
	return Limits{
		Types:          65_536,
		Params:         1_000,
		Results:        1_000,
		Imports:        1_000,
		Functions:      100_000,
		Tables:         16,
		TableElements:  100_000,
		Globals:        10_000,
		Exports:        10_000,
		Segments:       100_000,
		SegmentMembers: 1_000_000,
		Locals:         10_000,
		AllLocals:      2_000_000,
		BodyBytes:      2 << 20,
		BranchTargets:  65_520,
		Nesting:        10_000,
		NameBytes:      4_096,
		CustomSections: 1_000,
	}
}

package wasmbin

// Limits bound what [Parse] and [Module.CheckCode] accept, beyond what the
// format itself allows. A field that is 0 bounds nothing.
//
// The outer bounds are those of the WebAssembly JavaScript API, so that any
// toolchain keeps them; they are tightened to a multiple of what the guests of
// known toolchains need, because each of them is a lever on the time and memory
// that compiling takes.
type Limits struct {
	Types          int // signatures
	Params         int // of one signature
	Results        int // of one signature
	Imports        int
	Functions      int // of the module's own
	Tables         int
	TableElements  uint64 // at start, of one table
	Globals        int
	Exports        int
	Segments       int // data segments, and element segments
	SegmentMembers int // of all element segments together
	Locals         int // declared by one function
	AllLocals      int // declared by all functions together
	BodyBytes      int // of one function
	BranchTargets  int // of one br_table
	Nesting        int // of blocks in one function
	NameBytes      int // of an import's, export's or custom section's name
	CustomSections int
}

// DefaultLimits are what the host accepts. A Go guest of 3 MB has about 32,600
// data segments, 5,000 functions, 300 types and, as its compiler opens a block
// for each place where a function can be resumed, a nesting of some thousand.
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

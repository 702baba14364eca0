package wasmbin

import (
	"fmt"
	"strings"
)

// ValType is the type of a value, in the format's encoding.
type ValType byte

// The value types of WebAssembly 2.0.
const (
	I32       ValType = 0x7f
	I64       ValType = 0x7e
	F32       ValType = 0x7d
	F64       ValType = 0x7c
	V128      ValType = 0x7b
	FuncRef   ValType = 0x70
	ExternRef ValType = 0x6f
)

// String returns the type's name in the text format.
func (t ValType) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	case V128:
		return "v128"
	case FuncRef:
		return "funcref"
	case ExternRef:
		return "externref"
	}
	return fmt.Sprintf("type 0x%02x", byte(t))
}

func (t ValType) known() bool { return t >= V128 && t <= I32 || t == FuncRef || t == ExternRef }

// FuncType is the signature of a function.
type FuncType struct {
	Params, Results []ValType
}

// String returns the signature as "(i32, i32) -> (i64)".
func (t FuncType) String() string {
	var b strings.Builder
	list := func(v []ValType) {
		b.WriteByte('(')
		for i, t := range v {
			if i == 8 {
				fmt.Fprintf(&b, ", … %d more", len(v)-i)
				break
			}
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(t.String())
		}
		b.WriteByte(')')
	}
	list(t.Params)
	b.WriteString(" -> ")
	list(t.Results)
	return b.String()
}

// Equal reports whether two signatures are the same.
func (t FuncType) Equal(u FuncType) bool {
	return string(bytesOf(t.Params)) == string(bytesOf(u.Params)) &&
		string(bytesOf(t.Results)) == string(bytesOf(u.Results))
}

func bytesOf(v []ValType) []byte {
	b := make([]byte, len(v))
	for i, t := range v {
		b[i] = byte(t)
	}
	return b
}

// ExternKind is the kind of an import or export.
type ExternKind byte

// The kinds of imports and exports.
const (
	ExternFunc   ExternKind = 0
	ExternTable  ExternKind = 1
	ExternMemory ExternKind = 2
	ExternGlobal ExternKind = 3
	ExternTag    ExternKind = 4 // of the exceptions proposal
)

// String returns the kind's name.
func (k ExternKind) String() string {
	switch k {
	case ExternFunc:
		return "function"
	case ExternTable:
		return "table"
	case ExternMemory:
		return "memory"
	case ExternGlobal:
		return "global"
	case ExternTag:
		return "tag"
	}
	return fmt.Sprintf("kind 0x%02x", byte(k))
}

// Range is a part of the module: bytes [Start:End).
type Range struct{ Start, End int }

// Len returns the length in bytes.
func (r Range) Len() int { return r.End - r.Start }

// Limit is the size of a memory (in pages of 64 KiB) or a table (in elements).
type Limit struct {
	Min, Max uint64
	HasMax   bool
	Shared   bool // of the threads proposal
	Is64     bool // of the memory64 proposal
}

// Import is one import. Type is an index into Module.Types, and is used for functions only.
type Import struct {
	Module, Name string
	Kind         ExternKind
	Type         uint32
	Mutable      bool    // of a global
	Elements     ValType // of a table
	Offset       int     // in the module
}

// Table is a table that the module defines.
type Table struct {
	Type  ValType
	Size  Limit
	Range Range // its whole entry
}

// Global is a global that the module defines.
type Global struct {
	Type    ValType
	Mutable bool
	Init    Range // constant expression with its end
}

// Export is one export.
type Export struct {
	Name   string
	Kind   ExternKind
	Index  uint32
	Offset int
}

// Mode says when a segment is applied.
type Mode byte

// The modes of element and data segments.
const (
	Active      Mode = iota // at instantiation
	Passive                 // by an instruction
	Declarative             // never; elements only
)

// Element is one element segment.
type Element struct {
	Mode    Mode
	Table   uint32
	At      Range // constant expression with its end; empty unless active
	Count   int
	Members Range   // function indexes, or constant expressions
	Exprs   bool    // which of both
	Form    uint32  // how it is written, 0 to 7
	Type    ValType // of its members
}

// Data is one data segment.
type Data struct {
	Mode   Mode
	Memory uint32
	At     Range // constant expression with its end; empty unless active
	Init   Range
}

// Body is the code of one function of the module's own.
type Body struct {
	Entry        Range // with the size in front
	Declarations Range // of locals
	Locals       int   // declared, without parameters
	Code         Range // instructions, without local declarations, with the end
}

// Section is one section of the file.
type Section struct {
	ID      SectionID
	Name    string // of a custom section
	Entry   Range  // including id and size
	Content Range  // without them; of a custom section, also without its name
}

// SectionID is the kind of a section.
type SectionID byte

// The sections of the format.
const (
	SectionCustom    SectionID = 0
	SectionType      SectionID = 1
	SectionImport    SectionID = 2
	SectionFunction  SectionID = 3
	SectionTable     SectionID = 4
	SectionMemory    SectionID = 5
	SectionGlobal    SectionID = 6
	SectionExport    SectionID = 7
	SectionStart     SectionID = 8
	SectionElement   SectionID = 9
	SectionCode      SectionID = 10
	SectionData      SectionID = 11
	SectionDataCount SectionID = 12
	SectionTag       SectionID = 13
)

var sectionNames = [...]string{
	"custom section", "type section", "import section", "function section", "table section", "memory section",
	"global section", "export section", "start section", "element section", "code section", "data section",
	"data count section", "tag section",
}

// String returns the section's name.
func (s SectionID) String() string {
	if int(s) < len(sectionNames) {
		return sectionNames[s]
	}
	return fmt.Sprintf("section %d", byte(s))
}

// sectionOrder is the order of the non-custom sections in a file.
var sectionOrder = [...]int{
	SectionType: 1, SectionImport: 2, SectionFunction: 3, SectionTable: 4, SectionMemory: 5, SectionTag: 6,
	SectionGlobal: 7,
	SectionExport: 8, SectionStart: 9, SectionElement: 10, SectionDataCount: 11, SectionCode: 12, SectionData: 13,
}

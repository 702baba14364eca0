package metering

import (
	"fmt"

	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// addedImports is how far the indexes of the module's own functions are shifted.
const addedImports = 2

// addedGlobals are the globals of fuel and stack. References to functions come after them.
const addedGlobals = 2

// rewriter rewrites one module. Indexes in its fields are those of the new module, unless they are
// called old.
type rewriter struct {
	m *wasmbin.Module
	o Options

	imported    uint32 // number of functions that the module imports; their indexes stay
	importTypes []uint32
	functions   uint32 // old number of functions
	globals     uint32 // old number of globals
	types       []wasmbin.FuncType
	typeOf      map[string]uint32 // signatures by their key

	refuel, overflow uint32 // functions
	trouble          uint32
	fuel, stack      uint32 // globals
	nop              uint32 // type () -> ()
	setup            bool
	helpers          []addedFunction // after trouble
	helperOf         map[helperKey]int
	setupFunctions   []addedFunction // after the helpers; the last is ExportSetup
	references       []uint32        // old functions whose references are in globals, after the meter's own
	referenceOf      map[uint32]uint32
	declarations     []bool // by old function: something outside of the code refers to it; nil if not yet known
	data             []segment
	numbered         bool // the module has a data count section
	dataCount        bool // the new module has one

	light         []int64 // costs of the module's own light functions; -1 for the others
	captured      []Global
	capturedIndex []uint32
	why           string // the first reason why there can be no image

	out        *wasmbin.Writer
	plan       plan
	planStack  []control
	constructs []construct
	nanStack   []int32
	// Parts of charges and checks, encoded.
	fuelGet, fuelSet, stackGet, stackSet, callTrouble []byte
}

func newRewriter(m *wasmbin.Module, o Options) *rewriter {
	r := &rewriter{m: m, o: o, types: m.Types, typeOf: make(map[string]uint32, len(m.Types))}
	r.imported = uint32(m.Imported(wasmbin.ExternFunc))
	r.functions = r.imported + uint32(len(m.Functions))
	r.globals = uint32(m.Imported(wasmbin.ExternGlobal) + len(m.Globals))
	for _, x := range m.Imports {
		if x.Kind == wasmbin.ExternFunc {
			r.importTypes = append(r.importTypes, x.Type)
		}
	}
	for i, t := range m.Types {
		if _, ok := r.typeOf[typeKey(t)]; !ok {
			r.typeOf[typeKey(t)] = uint32(i)
		}
	}
	r.helperOf, r.referenceOf = map[helperKey]int{}, map[uint32]uint32{}
	r.refuel, r.overflow = r.imported, r.imported+1
	r.trouble = r.functions + addedImports
	r.fuel, r.stack = r.globals, r.globals+1
	r.nop = r.typeIndex(wasmbin.FuncType{})
	r.fuelGet = wasmbin.AppendU32([]byte{byte(wasmbin.OpGlobalGet)}, r.fuel)
	r.fuelSet = wasmbin.AppendU32([]byte{byte(wasmbin.OpGlobalSet)}, r.fuel)
	r.stackGet = wasmbin.AppendU32([]byte{byte(wasmbin.OpGlobalGet)}, r.stack)
	r.stackSet = wasmbin.AppendU32([]byte{byte(wasmbin.OpGlobalSet)}, r.stack)
	r.callTrouble = wasmbin.AppendU32([]byte{byte(wasmbin.OpCall)}, r.trouble)
	r.out = wasmbin.NewWriter(len(m.Bytes) + len(m.Bytes)/2 + 512)
	return r
}

func typeKey(t wasmbin.FuncType) string {
	b := make([]byte, 0, len(t.Params)+len(t.Results)+1)
	for _, v := range t.Params {
		b = append(b, byte(v))
	}
	b = append(b, 0)
	for _, v := range t.Results {
		b = append(b, byte(v))
	}
	return string(b)
}

// typeIndex returns the index of a signature, and adds it if it is new.
func (r *rewriter) typeIndex(t wasmbin.FuncType) uint32 {
	key := typeKey(t)
	if i, ok := r.typeOf[key]; ok {
		return i
	}
	i := uint32(len(r.types))
	r.types = append(r.types[:i:i], t)
	r.typeOf[key] = i
	return i
}

// function returns the new index of a function.
func (r *rewriter) function(old uint32) uint32 {
	if old < r.imported {
		return old
	}
	return old + addedImports
}

// signature returns the signature of what an instruction calls.
func (r *rewriter) signature(in *wasmbin.Instr) wasmbin.FuncType {
	if in.Op == wasmbin.OpCallIndirect || in.Op == wasmbin.OpReturnCallIndirect {
		return r.m.Types[in.Index]
	}
	if in.Index < r.imported {
		return r.m.Types[r.importTypes[in.Index]]
	}
	return r.m.Types[r.m.Functions[in.Index-r.imported]]
}

// notImageable records a reason why there can be no image. The first one is kept.
func (r *rewriter) notImageable(format string, args ...any) {
	if r.why == "" {
		r.why = fmt.Sprintf(format, args...)
	}
}

func (r *rewriter) bad(at int, section wasmbin.SectionID, format string, args ...any) error {
	return &wasmbin.Error{Offset: at, Section: section.String(), Message: fmt.Sprintf(format, args...)}
}

// sections writes the module. The code is written first, as types and setup depend on it, and is put
// in its place afterwards.
func (r *rewriter) sections() error {
	r.captureGlobals()
	if err := r.planSetup(); err != nil {
		return err
	}
	code, err := r.code()
	if err != nil {
		return err
	}
	globals, err := r.globalSection()
	if err != nil {
		return err
	}
	elements, err := r.elementSection()
	if err != nil {
		return err
	}
	w := r.out
	w.Section(wasmbin.SectionType, r.typeSection())
	w.Section(wasmbin.SectionImport, r.importSection())
	w.Section(wasmbin.SectionFunction, r.functionSection())
	if len(r.m.Tables) > 0 {
		w.Section(wasmbin.SectionTable, r.tableSection())
	}
	r.copySection(wasmbin.SectionMemory)
	w.Section(wasmbin.SectionGlobal, globals)
	w.Section(wasmbin.SectionExport, r.exportSection())
	if len(r.m.Elements) > 0 {
		w.Section(wasmbin.SectionElement, elements)
	}
	if r.dataCount {
		w.Section(wasmbin.SectionDataCount, wasmbin.AppendU32(nil, uint32(len(r.data))))
	}
	w.Section(wasmbin.SectionCode, code)
	if len(r.data) > 0 {
		w.Section(wasmbin.SectionData, r.dataSection())
	}
	w.Custom(wasmbin.NameSection, r.names())
	if size := len(w.Bytes()); r.beyond(size) {
		return r.tooLarge(len(r.m.Bytes), size)
	}
	return nil
}

// copySection copies a section unchanged.
func (r *rewriter) copySection(id wasmbin.SectionID) {
	for _, s := range r.m.Sections {
		if s.ID == id {
			r.out.Raw(r.m.Slice(s.Entry))
		}
	}
}

// content returns the content of a section after its count; nil if there is no such section.
func (r *rewriter) content(id wasmbin.SectionID) []byte {
	for _, s := range r.m.Sections {
		if s.ID == id {
			b := r.m.Slice(s.Content)
			for i, c := range b {
				if c < 0x80 {
					return b[i+1:]
				}
			}
		}
	}
	return nil
}

func (r *rewriter) typeSection() []byte {
	b := wasmbin.AppendU32(nil, uint32(len(r.types)))
	b = append(b, r.content(wasmbin.SectionType)...)
	for _, t := range r.types[len(r.m.Types):] {
		b = appendTypes(appendTypes(append(b, 0x60), t.Params), t.Results)
	}
	return b
}

func appendTypes(b []byte, types []wasmbin.ValType) []byte {
	b = wasmbin.AppendU32(b, uint32(len(types)))
	for _, t := range types {
		b = append(b, byte(t))
	}
	return b
}

// importSection adds the meter's imports after the module's own, so that the indexes of imported
// functions do not change.
func (r *rewriter) importSection() []byte {
	b := wasmbin.AppendU32(nil, uint32(len(r.m.Imports)+addedImports))
	b = append(b, r.content(wasmbin.SectionImport)...)
	for _, name := range [addedImports]string{ImportRefuel, ImportOverflow} {
		b = append(wasmbin.AppendName(wasmbin.AppendName(b, ImportModule), name), byte(wasmbin.ExternFunc))
		b = wasmbin.AppendU32(b, r.nop)
	}
	return b
}

func (r *rewriter) functionSection() []byte {
	added := r.added()
	b := wasmbin.AppendU32(nil, uint32(len(r.m.Functions)+len(added)))
	b = append(b, r.content(wasmbin.SectionFunction)...)
	for _, f := range added {
		b = wasmbin.AppendU32(b, f.typ)
	}
	return b
}

func (r *rewriter) tableSection() []byte {
	b := wasmbin.AppendU32(nil, uint32(len(r.m.Tables)))
	for _, t := range r.m.Tables {
		b = wasmbin.AppendLimit(append(b, byte(t.Type)), r.tableLimit(t))
	}
	return b
}

// tableLimit returns the limits of a table, with a maximum.
func (r *rewriter) tableLimit(t wasmbin.Table) wasmbin.Limit {
	if maxSize := r.o.tableMax(); !t.Size.HasMax || t.Size.Max > maxSize {
		t.Size.HasMax, t.Size.Max = true, maxSize
	}
	return t.Size
}

// captureGlobals finds the globals to export.
func (r *rewriter) captureGlobals() {
	for _, x := range r.m.Imports {
		if x.Kind != wasmbin.ExternFunc {
			r.notImageable("the module imports a %s", x.Kind)
		}
	}
	first := r.m.Imported(wasmbin.ExternGlobal)
	for i, g := range r.m.Globals {
		if !g.Mutable {
			continue
		}
		switch g.Type {
		case wasmbin.I32, wasmbin.I64, wasmbin.F32, wasmbin.F64:
			r.captured = append(r.captured, Global{fmt.Sprintf("%s%d", exportGlobal, first+i), g.Type})
			r.capturedIndex = append(r.capturedIndex, uint32(first+i))
		default:
			r.notImageable("global %d is a mutable %s", first+i, g.Type)
		}
	}
}

func (r *rewriter) globalSection() ([]byte, error) {
	b := wasmbin.AppendU32(nil, uint32(len(r.m.Globals)+addedGlobals+len(r.references)))
	for _, g := range r.m.Globals {
		mutable := byte(0)
		if g.Mutable {
			mutable = 1
		}
		var err error
		if b, err = r.constant(append(b, byte(g.Type), mutable), g.Init, wasmbin.SectionGlobal); err != nil {
			return nil, err
		}
	}
	for range addedGlobals { // fuel and stack: mutable i64, 0
		b = append(b, byte(wasmbin.I64), 1, 0x42, 0, byte(wasmbin.OpEnd))
	}
	for _, f := range r.references { // immutable
		b = wasmbin.AppendU32(append(b, byte(wasmbin.FuncRef), 0, byte(wasmbin.OpRefFunc)), r.function(f))
		b = append(b, byte(wasmbin.OpEnd))
	}
	return b, nil
}

// constant appends a constant expression, with shifted indexes of functions.
func (r *rewriter) constant(b []byte, expr wasmbin.Range, section wasmbin.SectionID) ([]byte, error) {
	var bad error
	err := r.m.WalkExpr(expr, func(in *wasmbin.Instr) {
		switch {
		case in.Op == wasmbin.OpRefFunc && in.Index >= r.functions:
			bad = r.bad(in.Start, section, "function %d does not exist", in.Index)
		case in.Op == wasmbin.OpRefFunc:
			b = wasmbin.AppendU32(append(b, byte(in.Op)), r.function(in.Index))
			return
		case in.Op == wasmbin.OpGlobalGet && in.Index >= r.globals:
			bad = r.bad(in.Start, section, "global %d does not exist", in.Index)
		}
		b = append(b, r.m.Bytes[in.Start:in.End]...)
	})
	if err == nil {
		err = bad
	}
	return b, err
}

func (r *rewriter) exportSection() []byte {
	n := len(r.m.Exports) + 2 + len(r.captured)
	if r.setup {
		n++
	}
	b := wasmbin.AppendU32(nil, uint32(n))
	export := func(name string, kind wasmbin.ExternKind, index uint32) {
		b = wasmbin.AppendU32(append(wasmbin.AppendName(b, name), byte(kind)), index)
	}
	for _, e := range r.m.Exports {
		if e.Kind == wasmbin.ExternFunc {
			e.Index = r.function(e.Index)
		}
		export(e.Name, e.Kind, e.Index)
	}
	export(ExportFuel, wasmbin.ExternGlobal, r.fuel)
	export(ExportStack, wasmbin.ExternGlobal, r.stack)
	for i, g := range r.captured {
		export(g.Export, wasmbin.ExternGlobal, r.capturedIndex[i])
	}
	if r.setup {
		export(ExportSetup, wasmbin.ExternFunc, r.trouble+uint32(len(r.added())-1))
	}
	return b
}

func (r *rewriter) elementSection() ([]byte, error) {
	b := wasmbin.AppendU32(nil, uint32(len(r.m.Elements)))
	var err error
	for _, e := range r.m.Elements {
		b = wasmbin.AppendU32(b, e.Form)
		if e.Mode == wasmbin.Active {
			if e.Form&2 != 0 {
				b = wasmbin.AppendU32(b, e.Table)
			}
			if b, err = r.constant(b, e.At, wasmbin.SectionElement); err != nil {
				return nil, err
			}
		}
		if e.Form&3 != 0 {
			if e.Exprs {
				b = append(b, byte(e.Type))
			} else {
				b = append(b, 0)
			}
		}
		b = wasmbin.AppendU32(b, uint32(e.Count))
		if b, err = r.members(b, e); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// members appends the members of an element segment. The reader has checked that the functions that
// are given by index exist.
func (r *rewriter) members(b []byte, e wasmbin.Element) ([]byte, error) {
	if e.Exprs {
		return r.constant(b, e.Members, wasmbin.SectionElement)
	}
	at := e.Members.Start
	for at < e.Members.End {
		index, n := leb(r.m.Bytes[at:e.Members.End])
		b = wasmbin.AppendU32(b, r.function(index))
		at += n
	}
	return b, nil
}

// leb decodes a number that has been checked before.
func leb(b []byte) (v uint32, n int) {
	for n < len(b) {
		c := b[n]
		v |= uint32(c&0x7f) << (7 * n)
		n++
		if c < 0x80 {
			break
		}
	}
	return v, n
}

// names returns the content of the name section: the functions' names, with shifted indexes, and
// the names of what was added.
func (r *rewriter) names() []byte {
	var list []byte
	n := uint32(0)
	name := func(index uint32, s string) {
		list = wasmbin.AppendName(wasmbin.AppendU32(list, index), s)
		n++
	}
	added := false
	own := func() {
		if !added {
			name(r.refuel, ImportModule+"."+ImportRefuel)
			name(r.overflow, ImportModule+"."+ImportOverflow)
		}
		added = true
	}
	r.m.EachFunctionName(func(old uint32, s string) {
		if old >= r.imported {
			own()
		}
		if old < r.functions { // the name of a function that does not exist could name an added one
			name(r.function(old), s)
		}
	})
	own()
	for i, f := range r.added() {
		name(r.trouble+uint32(i), ImportModule+f.name)
	}
	content := append(wasmbin.AppendU32(nil, n), list...)
	return append(wasmbin.AppendU32([]byte{1}, uint32(len(content))), content...) // 1: names of functions
}

package wasmbin

// Module is a parsed binary. Its slices and ranges refer to Bytes. Nothing in it may be changed.
type Module struct {
	Bytes     []byte
	Sections  []Section // in file order
	Types     []FuncType
	Imports   []Import
	Functions []uint32 // type index of each function that the module defines
	Tables    []Table
	Memories  []Limit // memories that the module defines
	Globals   []Global
	Exports   []Export
	Start     int // function index, -1 without a start section
	Elements  []Element
	Bodies    []Body // one for each element of Functions
	Data      []Data

	imported [5]int // number of imports by kind
}

// Imported returns the number of imports of a kind. They have the first indexes of that kind.
func (m *Module) Imported(k ExternKind) int {
	if int(k) >= len(m.imported) {
		return 0
	}
	return m.imported[k]
}

// FuncTypeOf returns the signature of a function by its index; imports come first. ok is false if
// there is no such function.
func (m *Module) FuncTypeOf(index uint32) (FuncType, bool) {
	i := int64(index)
	if i < int64(m.imported[ExternFunc]) {
		for k := range m.Imports {
			if m.Imports[k].Kind != ExternFunc {
				continue
			}
			if i == 0 {
				return m.Types[m.Imports[k].Type], true
			}
			i--
		}
	}
	i -= int64(m.imported[ExternFunc])
	if i < 0 || i >= int64(len(m.Functions)) {
		return FuncType{}, false
	}
	return m.Types[m.Functions[i]], true
}

// Export returns the export of a name; ok is false if there is none.
func (m *Module) Export(name string) (Export, bool) {
	for _, e := range m.Exports {
		if e.Name == name {
			return e, true
		}
	}
	return Export{}, false
}

// Custom returns a view of the content of the first custom section of a name; ok is false if there is
// none.
func (m *Module) Custom(name string) ([]byte, bool) {
	for _, s := range m.Sections {
		if s.ID == SectionCustom && s.Name == name {
			return m.Slice(s.Content), true
		}
	}
	return nil, false
}

// Slice returns a view of a range of the module.
func (m *Module) Slice(r Range) []byte { return m.Bytes[r.Start:r.End:r.End] }

// The first bytes of a core module, and of a component.
const (
	magic            = "\x00asm"
	coreVersion      = "\x01\x00\x00\x00"
	componentVersion = "\x0d\x00\x01\x00"
)

// Header returns nil if b starts like a core WebAssembly module. Otherwise it returns an [Error] that
// says what b looks like and what to do.
func Header(b []byte) error {
	at := func(offset int, message string) error {
		return &Error{Offset: offset, Section: "header", Message: message}
	}
	switch {
	case len(b) == 0:
		return at(0, "the module is empty")
	case len(b) < 8 && (len(b) < 4 && magic[:len(b)] == string(b) || len(b) >= 4 && string(b[:4]) == magic):
		return at(len(b), "the module ends inside its 8-byte header")
	case len(b) < 4 || string(b[:4]) != magic:
		return at(0,
			`not WebAssembly: it does not start with "\0asm"; upload the .wasm file, not text,`+
				` an archive or a native program`)
	case string(b[4:8]) == componentVersion:
		return at(4,
			"a WebAssembly component; this host runs core modules: build the guest as a core module (for Rust "+
				"wasm32-unknown-unknown, for Go GOOS=wasip1), or take the core module out of the component")
	case string(b[4:8]) != coreVersion:
		return at(4, "WebAssembly of a version other than 1")
	}
	return nil
}

// Parse reads a module. It checks the structure of every section, that the indexes of types,
// functions and the like exist, and the limits. It does not read the instructions of function bodies;
// [Module.CheckCode] does. The result refers to b, which must not be changed.
func Parse(b []byte, l Limits) (*Module, error) {
	if err := Header(b); err != nil {
		return nil, err
	}
	p := parser{reader: reader{b: b, at: 8, end: len(b), section: "module"}, limits: l, m: &Module{Bytes: b, Start: -1}}
	p.sections()
	if p.err != nil {
		return nil, p.err
	}
	return p.m, nil
}

// parser reads sections into a module.
type parser struct {
	reader
	limits    Limits
	m         *Module
	locals    int // number of locals declared so far
	members   int // number of members of element segments so far
	dataCount int // -1 if there is no data count section
}

func (p *parser) sections() {
	p.dataCount = -1
	last := SectionCustom
	custom := 0
	for p.at < p.end && p.err == nil {
		p.section = "module"
		start := p.at
		id := SectionID(p.u8("a section id"))
		if int(id) >= len(sectionOrder) {
			p.fail(start, "unknown section id %d", id)
			return
		}
		p.section = id.String()
		size := p.u32("the section's size")
		if p.err != nil {
			return
		}
		if int64(size) > int64(p.left()) {
			p.fail(p.at, "the section has %d bytes, but the module ends after %d", size, p.left())
			return
		}
		if id != SectionCustom {
			if sectionOrder[id] == sectionOrder[last] {
				p.fail(start, "the section appears twice")
				return
			}
			if sectionOrder[id] < sectionOrder[last] {
				p.fail(start, "the section comes after the %s; it belongs before it", last)
				return
			}
			last = id
		} else if custom++; p.limits.CustomSections > 0 && custom > p.limits.CustomSections {
			p.fail(start, "more than %d custom sections", p.limits.CustomSections)
			return
		}
		s := Section{ID: id, Content: Range{p.at, p.at + int(size)}}
		s.Entry = Range{start, s.Content.End}
		end := p.end
		p.end = s.Content.End
		if id == SectionCustom {
			s.Name = p.name("the section's name", p.limits.NameBytes)
			s.Content.Start = p.at
			p.at = p.end
		} else {
			p.content(id)
		}
		if p.err != nil {
			return
		}
		if p.at != p.end {
			p.fail(p.at, "%d bytes follow the section's last member", p.left())
			return
		}
		p.end = end
		p.m.Sections = append(p.m.Sections, s)
	}
	p.whole()
}

// whole checks what involves several sections.
func (p *parser) whole() {
	if p.err != nil {
		return
	}
	p.section = "module"
	m := p.m
	if len(m.Bodies) != len(m.Functions) {
		p.fail(p.end, "the function section declares %d functions, the code section holds %d", len(m.Functions),
			len(m.Bodies))
	}
	if p.dataCount >= 0 && p.dataCount != len(m.Data) {
		p.fail(p.end, "the data count section says %d segments, the data section holds %d", p.dataCount, len(m.Data))
	}
	seen := make(map[string]struct{}, len(m.Exports))
	for _, e := range m.Exports {
		if _, twice := seen[e.Name]; twice {
			p.fail(e.Offset, "two exports are named %.100q", e.Name)
		}
		seen[e.Name] = struct{}{}
		var have int
		switch e.Kind {
		case ExternFunc:
			have = len(m.Functions)
		case ExternTable:
			have = len(m.Tables)
		case ExternMemory:
			have = len(m.Memories)
		case ExternGlobal:
			have = len(m.Globals)
		}
		if int64(e.Index) >= int64(have+m.Imported(e.Kind)) {
			p.fail(e.Offset, "export %.100q is %s %d, which does not exist", e.Name, e.Kind, e.Index)
		}
	}
	if m.Start >= 0 {
		if t, ok := m.FuncTypeOf(uint32(m.Start)); !ok {
			p.fail(p.end, "the start section names function %d, which does not exist", m.Start)
		} else if len(t.Params)+len(t.Results) > 0 {
			p.fail(p.end, "the start function has the signature %s; it must be () -> ()", t)
		}
	}
}

func (p *parser) content(id SectionID) {
	switch id {
	case SectionType:
		p.types()
	case SectionImport:
		p.imports()
	case SectionFunction:
		n := p.count("functions", 1, p.limits.Functions)
		for i := 0; i < n && p.err == nil; i++ {
			p.m.Functions = append(p.m.Functions, p.typeIndex())
		}
	case SectionTable:
		p.tables()
	case SectionMemory:
		n := p.count("memories", 2, 0)
		for i := 0; i < n && p.err == nil; i++ {
			p.m.Memories = append(p.m.Memories, p.limit("memory"))
		}
	case SectionTag:
		p.fail(p.at, "exceptions (tags) are not supported; build the guest without them")
	case SectionGlobal:
		n := p.count("globals", 4, p.limits.Globals)
		for i := 0; i < n && p.err == nil; i++ {
			g := Global{Type: p.valType("a global")}
			g.Mutable = p.mutability()
			g.Init = p.constExpr()
			p.m.Globals = append(p.m.Globals, g)
		}
	case SectionExport:
		n := p.count("exports", 3, p.limits.Exports)
		for i := 0; i < n && p.err == nil; i++ {
			e := Export{Offset: p.at, Name: p.name("an export's name", p.limits.NameBytes)}
			e.Kind = ExternKind(p.u8("an export's kind"))
			if e.Kind > ExternGlobal {
				p.fail(p.at-1, "export %.100q is of %s; exceptions are not supported", e.Name, e.Kind)
			}
			e.Index = p.u32("an export's index")
			p.m.Exports = append(p.m.Exports, e)
		}
	case SectionStart:
		if i := p.u32("the start function's index"); p.err == nil {
			p.m.Start = int(i)
		}
	case SectionElement:
		p.elements()
	case SectionDataCount:
		if n := p.u32("the number of data segments"); p.err == nil {
			p.dataCount = int(n)
		}
	case SectionCode:
		p.bodies()
	case SectionData:
		p.data()
	}
}

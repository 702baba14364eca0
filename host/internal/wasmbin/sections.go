package wasmbin

func (p *parser) types() {
	n := p.count("types", 3, p.limits.Types)
	for i := 0; i < n && p.err == nil; i++ {
		at := p.at
		switch form := p.u8("a type"); form {
		case 0x60:
			t := FuncType{Params: p.valTypes("parameters", p.limits.Params)}
			t.Results = p.valTypes("results", p.limits.Results)
			p.m.Types = append(p.m.Types, t)
		case 0x4e, 0x4f, 0x50, 0x5e, 0x5f:
			p.fail(at, "types of the garbage collection proposal are not supported; build the guest without them")
		default:
			p.fail(at, "type of form 0x%02x; a function type is 0x60", form)
		}
	}
}

func (p *parser) valTypes(what string, limit int) []ValType {
	n := p.count(what, 1, limit)
	if n == 0 {
		return nil
	}
	v := make([]ValType, 0, n) // count has checked that n bytes are there
	for i := 0; i < n && p.err == nil; i++ {
		v = append(v, p.valType("a function type"))
	}
	return v
}

func (p *parser) valType(of string) ValType {
	at := p.at
	t := ValType(p.u8("the type of " + of))
	if p.err == nil && !t.known() {
		p.fail(at, "unknown value type 0x%02x of %s", byte(t), of)
	}
	return t
}

func (p *parser) typeIndex() uint32 {
	at := p.at
	i := p.u32("a type index")
	if p.err == nil && int64(i) >= int64(len(p.m.Types)) {
		p.fail(at, "type %d does not exist; there are %d", i, len(p.m.Types))
	}
	return i
}

func (p *parser) mutability() bool {
	at := p.at
	b := p.u8("a global's mutability")
	if b > 1 {
		p.fail(at, "mutability 0x%02x; it is 0 or 1", b)
	}
	return b == 1
}

// limit reads the size of a memory or table. It accepts the forms of proposals, so that the caller can
// report them together with other violations.
func (p *parser) limit(what string) (l Limit) {
	at := p.at
	flags := p.u8("the flags of a " + what)
	if flags > 7 {
		p.fail(at, "flags 0x%02x of a %s; known are 0 to 7", flags, what)
		return Limit{}
	}
	l.HasMax, l.Shared, l.Is64 = flags&1 != 0, flags&2 != 0, flags&4 != 0
	if l.Is64 {
		l.Min = p.u64("the minimum of a " + what)
	} else {
		l.Min = uint64(p.u32("the minimum of a " + what))
	}
	if l.HasMax && l.Is64 {
		l.Max = p.u64("the maximum of a " + what)
	} else if l.HasMax {
		l.Max = uint64(p.u32("the maximum of a " + what))
	}
	if p.err == nil && l.HasMax && l.Max < l.Min {
		p.fail(at, "a %s has the minimum %d above the maximum %d", what, l.Min, l.Max)
	}
	return l
}

func (p *parser) imports() {
	n := p.count("imports", 4, p.limits.Imports)
	for i := 0; i < n && p.err == nil; i++ {
		x := Import{Offset: p.at, Module: p.name("an import's module", p.limits.NameBytes)}
		x.Name = p.name("an import's name", p.limits.NameBytes)
		at := p.at
		x.Kind = ExternKind(p.u8("an import's kind"))
		switch x.Kind {
		case ExternFunc:
			x.Type = p.typeIndex()
		case ExternTable:
			x.Elements = p.refType("an imported table")
			p.limit("table")
		case ExternMemory:
			p.limit("memory")
		case ExternGlobal:
			p.valType("an imported global")
			x.Mutable = p.mutability()
		case ExternTag:
			p.u8("a tag's attribute")
			p.typeIndex()
		default:
			p.fail(at, "import %.100q.%.100q is of %s", x.Module, x.Name, x.Kind)
		}
		if p.err == nil {
			p.m.imported[x.Kind]++
			p.m.Imports = append(p.m.Imports, x)
		}
	}
}

func (p *parser) refType(of string) ValType {
	at := p.at
	t := ValType(p.u8("the type of " + of))
	if p.err == nil && t != FuncRef && t != ExternRef {
		p.fail(at, "%s holds %s; it may hold funcref or externref", of, t)
	}
	return t
}

func (p *parser) tables() {
	n := p.count("tables", 3, p.limits.Tables)
	for i := 0; i < n && p.err == nil; i++ {
		t := Table{Range: Range{Start: p.at}}
		t.Type = p.refType("a table")
		t.Size = p.limit("table")
		if max := p.limits.TableElements; max > 0 && t.Size.Min > max {
			p.fail(t.Range.Start, "a table of %d elements; this host accepts %d", t.Size.Min, max)
		}
		t.Range.End = p.at
		p.m.Tables = append(p.m.Tables, t)
	}
}

// constExpr reads a constant expression. Validation checks that it is constant and has the right type.
func (p *parser) constExpr() Range {
	start := p.at
	w := walker{reader: &p.reader, limits: &p.limits}
	for p.err == nil {
		if in := w.next(); in.Op == OpEnd && w.depth < 0 {
			break
		} else if p.at-start > 1024 {
			p.fail(start, "a constant expression of more than 1024 bytes")
		}
	}
	return Range{start, p.at}
}

// elements reads element segments in their eight forms. Bit 0: passive or declarative. Bit 1: the table
// is given, or, with bit 0, the segment is declarative. Bit 2: the members are expressions.
func (p *parser) elements() {
	n := p.count("element segments", 2, p.limits.Segments)
	for i := 0; i < n && p.err == nil; i++ {
		at := p.at
		flags := p.u32("the flags of an element segment")
		if flags > 7 {
			p.fail(at, "element segment of form %d; known are 0 to 7", flags)
			return
		}
		e := Element{Exprs: flags&4 != 0, Form: flags, Type: FuncRef}
		switch {
		case flags&1 == 0:
			e.Mode = Active
			if flags&2 != 0 {
				e.Table = p.u32("a table index")
			}
			if tables := len(p.m.Tables) + p.m.imported[ExternTable]; p.err == nil && int64(e.Table) >= int64(tables) {
				p.fail(at, "element segment for table %d, which does not exist", e.Table)
			}
			e.At = p.constExpr()
		case flags&2 == 0:
			e.Mode = Passive
		default:
			e.Mode = Declarative
		}
		if flags&3 != 0 {
			if e.Exprs {
				e.Type = p.refType("an element segment")
			} else if kind := p.u8("an element segment's kind"); kind != 0 {
				p.fail(p.at-1, "element segment of kind 0x%02x; only functions (0) are known", kind)
			}
		}
		p.elementMembers(&e)
		p.m.Elements = append(p.m.Elements, e)
	}
}

func (p *parser) elementMembers(e *Element) {
	e.Count = p.count("elements", 1, p.limits.SegmentMembers)
	if p.members += e.Count; p.limits.SegmentMembers > 0 && p.members > p.limits.SegmentMembers {
		p.fail(p.at, "more than %d elements in all segments together", p.limits.SegmentMembers)
	}
	e.Members.Start = p.at
	functions := len(p.m.Functions) + p.m.imported[ExternFunc]
	for k := 0; k < e.Count && p.err == nil; k++ {
		if e.Exprs {
			p.constExpr()
			continue
		}
		at := p.at
		if f := p.u32("a function index"); p.err == nil && int64(f) >= int64(functions) {
			p.fail(at, "element names function %d, which does not exist", f)
		}
	}
	e.Members.End = p.at
}

func (p *parser) data() {
	n := p.count("data segments", 2, p.limits.Segments)
	for i := 0; i < n && p.err == nil; i++ {
		at := p.at
		var d Data
		switch flags := p.u32("the flags of a data segment"); flags {
		case 0, 2:
			if flags == 2 {
				d.Memory = p.u32("a memory index")
			}
			if memories := len(p.m.Memories) + p.m.imported[ExternMemory]; p.err == nil &&
				int64(d.Memory) >= int64(memories) {
				p.fail(at, "data segment for memory %d, which does not exist", d.Memory)
			}
			d.At = p.constExpr()
		case 1:
			d.Mode = Passive
		default:
			p.fail(at, "data segment of form %d; known are 0 to 2", flags)
		}
		size := p.u32("the size of a data segment")
		d.Init.Start = p.at
		p.bytes(size, "a data segment")
		d.Init.End = p.at
		p.m.Data = append(p.m.Data, d)
	}
}

func (p *parser) bodies() {
	n := p.count("function bodies", 3, p.limits.Functions)
	for i := 0; i < n && p.err == nil; i++ {
		start := p.at
		size := p.u32("the size of a function body")
		if p.err != nil {
			return
		}
		if int64(size) > int64(p.left()) {
			p.fail(start, "function body %d has %d bytes, but %d remain", i, size, p.left())
			return
		}
		if max := p.limits.BodyBytes; max > 0 && int64(size) > int64(max) {
			p.fail(start, "function body %d has %d bytes; this host accepts %d", i, size, max)
			return
		}
		b := Body{Entry: Range{start, p.at + int(size)}}
		end := p.end
		p.end = b.Entry.End
		b.Declarations.Start = p.at
		b.Locals = p.declarations(i)
		b.Declarations.End = p.at
		b.Code = Range{p.at, p.end}
		if p.err != nil {
			return
		}
		if b.Code.Len() == 0 || p.b[b.Code.End-1] != byte(OpEnd) {
			p.fail(b.Code.End, "function body %d does not close with end (0x0b)", i)
			return
		}
		p.at, p.end = b.Entry.End, end
		p.m.Bodies = append(p.m.Bodies, b)
	}
}

// declarations reads a body's declarations of locals: runs of a count and a type.
func (p *parser) declarations(body int) int {
	var sum uint64
	runs := p.count("local declarations", 2, 0)
	for i := 0; i < runs && p.err == nil; i++ {
		at := p.at
		sum += uint64(p.u32("a number of locals"))
		if max := p.limits.Locals; max > 0 && sum > uint64(max) {
			p.fail(at, "function body %d declares more than %d locals", body, max)
		}
		p.valType("a local")
	}
	if sum > 1<<31 { // without limits
		p.fail(p.at, "function body %d declares more than 2^31 locals", body)
		return 0
	}
	if p.locals += int(sum); p.limits.AllLocals > 0 && p.locals > p.limits.AllLocals {
		p.fail(p.at, "more than %d locals in all functions together", p.limits.AllLocals)
	}
	return int(sum)
}

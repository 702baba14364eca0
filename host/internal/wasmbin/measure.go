package wasmbin

// Measure returns how much a module has of each thing that [Limits] bound, in the same fields. It
// returns an [Error] where the code breaks the format.
func (m *Module) Measure() (Limits, error) {
	l := Limits{
		Types: len(m.Types), Imports: len(m.Imports), Functions: len(m.Functions), Tables: len(m.Tables),
		Globals: len(m.Globals), Exports: len(m.Exports), Segments: max(len(m.Data), len(m.Elements)),
	}
	for _, t := range m.Types {
		l.Params, l.Results = max(l.Params, len(t.Params)), max(l.Results, len(t.Results))
	}
	for _, t := range m.Tables {
		l.TableElements = max(l.TableElements, t.Size.Min)
	}
	for _, e := range m.Elements {
		l.SegmentMembers += e.Count
	}
	for _, x := range m.Imports {
		l.NameBytes = max(l.NameBytes, len(x.Module), len(x.Name))
	}
	for _, e := range m.Exports {
		l.NameBytes = max(l.NameBytes, len(e.Name))
	}
	for _, s := range m.Sections {
		if s.ID == SectionCustom {
			l.CustomSections++
			l.NameBytes = max(l.NameBytes, len(s.Name))
		}
	}
	for i, b := range m.Bodies {
		l.Locals, l.AllLocals = max(l.Locals, b.Locals), l.AllLocals+b.Locals
		l.BodyBytes = max(l.BodyBytes, b.Declarations.Len()+b.Code.Len())
		err := m.Walk(i, Limits{}, func(in *Instr) {
			l.Nesting = max(l.Nesting, in.Depth) // a block encloses its end
			if in.Op == OpBrTable {
				n := -1 // do not count the default
				m.BranchTargets(in, func(uint32) { n++ })
				l.BranchTargets = max(l.BranchTargets, n)
			}
		})
		if err != nil {
			return l, err
		}
	}
	return l, nil
}

// Quantity is one field of [Limits], with its description.
type Quantity struct {
	Name  string
	Value uint64
}

// Quantities returns all fields of l, always in the same order.
func (l Limits) Quantities() []Quantity {
	n := func(name string, v int) Quantity { return Quantity{name, uint64(v)} }
	return []Quantity{
		n("types", l.Types), n("parameters of one type", l.Params), n("results of one type", l.Results),
		n("imports", l.Imports), n("functions", l.Functions), n("tables", l.Tables),
		{"elements of one table at start", l.TableElements},
		n("globals", l.Globals), n("exports", l.Exports), n("segments", l.Segments),
		n("members of all element segments", l.SegmentMembers),
		n("locals of one function", l.Locals), n("locals of all functions", l.AllLocals),
		n("bytes of one function", l.BodyBytes),
		n("targets of one br_table", l.BranchTargets), n("nested blocks", l.Nesting),
		n("bytes of one name", l.NameBytes),
		n("custom sections", l.CustomSections),
	}
}

// Times returns l with each bound multiplied by n.
func (l Limits) Times(n int) Limits {
	return Limits{
		Types: n * l.Types, Params: n * l.Params, Results: n * l.Results, Imports: n * l.Imports,
		Functions: n * l.Functions,
		Tables:    n * l.Tables, TableElements: uint64(n) * l.TableElements, Globals: n * l.Globals,
		Exports:  n * l.Exports,
		Segments: n * l.Segments, SegmentMembers: n * l.SegmentMembers, Locals: n * l.Locals,
		AllLocals: n * l.AllLocals,
		BodyBytes: n * l.BodyBytes, BranchTargets: n * l.BranchTargets, Nesting: n * l.Nesting,
		NameBytes:      n * l.NameBytes,
		CustomSections: n * l.CustomSections,
	}
}

package wasmbin

// NameSection is the custom section with the names of functions and locals.
const NameSection = "name"

// functionNames is the id of the subsection with the names of functions.
const functionNames = 1

// FunctionNames returns the content of a name section that has only the module's function names, or
// nil if there are none or they break the format. Names are for people, so a broken list of names is
// no reason to refuse a module; but a reader that trusts its counts must not see it.
func (m *Module) FunctionNames() []byte {
	content, ok := m.Custom(NameSection)
	if !ok {
		return nil
	}
	r := reader{b: content, end: len(content), section: NameSection}
	for r.at < r.end && r.err == nil {
		start := r.at
		id := r.u8("a subsection's id")
		size := r.u32("a subsection's size")
		sub := r.bytes(size, "a subsection")
		if r.err == nil && id == functionNames {
			if !validNames(sub) {
				return nil
			}
			return content[start:r.at:r.at]
		}
	}
	return nil
}

// EachFunctionName calls visit with each name in [Module.FunctionNames], in the order of indexes.
// There need not be a function of that index.
func (m *Module) EachFunctionName(visit func(index uint32, name string)) {
	content := m.FunctionNames()
	r := reader{b: content, end: len(content), section: NameSection}
	if content == nil {
		return
	}
	r.u8("a subsection's id")
	r.u32("a subsection's size")
	n := r.u32("the number of names")
	for i := uint32(0); i < n && r.err == nil; i++ {
		index := r.u32("an index")
		if name := r.name("a name", 1<<16); r.err == nil {
			visit(index, name)
		}
	}
}

func validNames(b []byte) bool {
	r := reader{b: b, end: len(b), section: NameSection}
	n := r.count("names", 2, 0)
	last := int64(-1)
	for i := 0; i < n && r.err == nil; i++ {
		index := int64(r.u32("an index"))
		if index <= last {
			return false
		}
		last = index
		r.name("a name", 1<<16)
	}
	return r.err == nil && r.at == r.end
}

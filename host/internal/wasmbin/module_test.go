package wasmbin_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// whole is a module with something in every section.
func whole() []byte {
	m := testguest.CounterManifest("whole")
	return testguest.CounterWith(m.AppendJSON(nil), func(b *testguest.Builder) {
		g := b.GlobalI32(-7)
		f := b.Func(nil, nil, nil, testguest.GlobalGet(g), testguest.GlobalSet(g),
			testguest.Op(0xfd, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), testguest.Drop)
		b.Table(4)
		b.Element(f, f)
		b.Start(f)
		b.Custom("name", []byte{1, 4, 1, 0, 1, 'f'})
		b.Custom("note", []byte("anything"))
	})
}

func parse(t *testing.T, b []byte) *wasmbin.Module {
	t.Helper()
	m, err := wasmbin.Parse(b, wasmbin.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.CheckCode(wasmbin.DefaultLimits()); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestParse(t *testing.T) {
	m := parse(t, whole())
	if len(m.Bodies) != len(m.Functions) || len(m.Bodies) != 5 {
		t.Errorf("%d bodies, %d functions", len(m.Bodies), len(m.Functions))
	}
	if len(m.Memories) != 1 || m.Memories[0].Min == 0 || m.Memories[0].HasMax {
		t.Errorf("memories %+v", m.Memories)
	}
	if len(m.Tables) != 1 || m.Tables[0].Size.Min != 4 || len(m.Elements) != 1 || m.Elements[0].Count != 2 {
		t.Errorf("tables %+v, elements %+v", m.Tables, m.Elements)
	}
	if len(m.Globals) != 1 || !m.Globals[0].Mutable || m.Globals[0].Type != wasmbin.I32 {
		t.Errorf("globals %+v", m.Globals)
	}
	if m.Start != 4 {
		t.Errorf("start %d", m.Start)
	}
	e, ok := m.Export("bulkhead_v1_call")
	if sig, found := m.FuncTypeOf(e.Index); !ok || !found || sig.String() != "(i32) -> (i64)" {
		t.Errorf("call is %v %v", sig, ok)
	}
	if note, ok := m.Custom("note"); !ok || string(note) != "anything" {
		t.Errorf("custom section %q", note)
	}
	if names := m.FunctionNames(); !bytes.Equal(names, []byte{1, 4, 1, 0, 1, 'f'}) {
		t.Errorf("names %v", names)
	}
	// Sections cover the file, without gaps.
	at := 8
	for _, s := range m.Sections {
		if s.Entry.Start != at {
			t.Errorf("%v starts at %d, the last ended at %d", s.ID, s.Entry.Start, at)
		}
		at = s.Entry.End
	}
	if at != len(m.Bytes) {
		t.Errorf("sections end at %d of %d", at, len(m.Bytes))
	}
}

func TestWriterRepeatsWhatWasRead(t *testing.T) {
	m := parse(t, whole())
	w := wasmbin.NewWriter(0)
	for _, s := range m.Sections {
		if s.ID == wasmbin.SectionCustom {
			w.Custom(s.Name, m.Slice(s.Content))
			continue
		}
		w.Section(s.ID, m.Slice(s.Content))
	}
	if !bytes.Equal(w.Bytes(), m.Bytes) {
		t.Error("the module differs after it was put together again")
	}
}

func TestTruncatedAtEveryByte(t *testing.T) {
	b := whole()
	boundaries := map[int]bool{8: true}
	for _, s := range parse(t, b).Sections {
		boundaries[s.Entry.End] = true
	}
	for n := range b {
		m, err := wasmbin.Parse(b[:n:n], wasmbin.DefaultLimits())
		if err == nil {
			// Between two sections the rest may be missing, if no other section needs it.
			if !boundaries[n] {
				t.Errorf("accepted when cut at byte %d of %d", n, len(b))
			}
			_ = m.CheckCode(wasmbin.DefaultLimits())
			continue
		}
		var e *wasmbin.Error
		if !errors.As(err, &e) || e.Section == "" || e.Offset < 0 || e.Offset > n {
			t.Errorf("cut at byte %d: %v", n, err)
		}
	}
}

func TestHeader(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"empty":     {"", "empty"},
		"cut magic": {"\x00as", "ends inside its 8-byte header"},
		"cut":       {"\x00asm\x01\x00", "ends inside its 8-byte header"},
		"text":      {"(module)", "not WebAssembly"},
		"elf":       {"\x7fELF\x02\x01\x01\x00", "not WebAssembly"},
		"component": {"\x00asm\x0d\x00\x01\x00", "component; this host runs core modules"},
		"version 2": {"\x00asm\x02\x00\x00\x00", "version other than 1"},
	} {
		_, err := wasmbin.Parse([]byte(c.in), wasmbin.DefaultLimits())
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "header") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := wasmbin.Parse([]byte("\x00asm\x01\x00\x00\x00"), wasmbin.DefaultLimits()); err != nil {
		t.Errorf("the empty module: %v", err)
	}
}

// section returns a module with one section.
func section(id byte, content ...byte) []byte {
	w := wasmbin.NewWriter(0)
	w.Section(wasmbin.SectionID(id), content)
	return w.Bytes()
}

func join(first []byte, more ...[]byte) []byte {
	b := bytes.Clone(first)
	for _, m := range more {
		b = append(b, m[8:]...)
	}
	return b
}

// code returns a module with one function () -> () of this body.
func code(body ...byte) []byte {
	content := wasmbin.AppendU32([]byte{1}, uint32(len(body)))
	return join(section(1, 1, 0x60, 0, 0), section(3, 1, 0), section(10, append(content, body...)...))
}

func TestRefuses(t *testing.T) {
	header := section(1)[:8]
	types := section(1, 1, 0x60, 0, 0)
	many := func(n uint32, rest ...byte) []byte { return append(wasmbin.AppendU32(nil, n), rest...) }
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"unknown section": {section(99), "unknown section id 99"},
		"section beyond file": {append(bytes.Clone(header), 1, 100, 0),
			"the section has 100 bytes, but the module ends after 1"},
		"section cut in size":  {append(bytes.Clone(header), 1, 0x80), "ends inside the section's size"},
		"section twice":        {join(types, types), "type section: the section appears twice"},
		"section out of order": {join(section(3, 0), types), "comes after the function section"},
		"bytes behind":         {section(1, 0, 0), "1 bytes follow"},
		"overlong count":       {section(1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00), "more than 5 bytes"},
		"overflowing count":    {section(1, 0xff, 0xff, 0xff, 0xff, 0x1f), "overflows 32 bits"},
		"count beyond bytes":   {section(1, many(0xffffffff)...), "4294967295 types do not fit"},
		"imports beyond bytes": {section(2, many(1<<31)...), "imports do not fit"},
		"code beyond bytes":    {section(10, many(1<<28, 0, 0)...), "function bodies do not fit"},
		"params beyond bytes": {section(1, append([]byte{1, 0x60}, many(1<<30, 0x7f)...)...),
			"parameters do not fit"},
		"br_table beyond bytes": {code(0, 0x0e, 0xff, 0xff, 0x03, 0x0b), "branch targets do not fit"},
		"unknown type form":     {section(1, 1, 0x40, 0, 0), "form 0x40"},
		"gc type":               {section(1, 1, 0x5f, 0, 0), "garbage collection"},
		"unknown value type":    {section(1, 1, 0x60, 1, 0x10, 0), "unknown value type 0x10"},
		"name not utf-8":        {section(2, 1, 1, 0xff, 1, 'a', 0, 0), "an import's module is not UTF-8"},
		"type missing":          {section(3, 1, 0), "type 0 does not exist"},
		"import kind":           {join(types, section(2, 1, 1, 'a', 1, 'b', 9, 0)), "kind 0x09"},
		"limit flags":           {section(5, 1, 8, 1), "flags 0x08"},
		"limit order":           {section(5, 1, 1, 2, 1), "minimum 2 above the maximum 1"},
		"tags":                  {section(13, 1, 0, 0), "exceptions (tags) are not supported"},
		"mutability":            {section(6, 1, 0x7f, 2, 0x41, 0, 0x0b), "mutability 0x02"},
		"export of nothing":     {section(7, 1, 1, 'a', 0, 0), "function 0, which does not exist"},
		"export twice": {join(section(5, 1, 0, 1), section(7, 2, 1, 'a', 2, 0, 1, 'a', 2, 0)),
			"two exports are named \"a\""},
		"start of nothing":   {section(8, 7), "function 7, which does not exist"},
		"functions without":  {join(types, section(3, 1, 0)), "declares 1 functions, the code section holds 0"},
		"data count":         {section(12, 3), "says 3 segments"},
		"data for no memory": {section(11, 1, 0, 0x41, 0, 0x0b, 0), "memory 0, which does not exist"},
		"data beyond": {join(section(5, 1, 0, 1), section(11, 1, 0, 0x41, 0, 0x0b, 9, 1)),
			"a data segment has 9 bytes, but 1 remain"},
		"data form":            {section(11, 1, 7, 0), "data segment of form 7"},
		"element form":         {section(9, 1, 9, 0), "element segment of form 9"},
		"element for no table": {section(9, 1, 0, 0x41, 0, 0x0b, 0), "table 0, which does not exist"},
		"element of nothing":   {section(9, 1, 1, 0, 1, 0), "function 0, which does not exist"},
		"table too large":      {section(4, 1, 0x70, 0, 0xc0, 0x84, 0x3d), "a table of 1000000 elements"},
		"body without end":     {code(0, 0x01, 0x01), "does not close with end"},
		"body beyond": {join(types, section(3, 1, 0), section(10, 1, 50, 0, 0x0b)),
			"has 50 bytes, but 2 remain"},
		"locals": {code(append([]byte{1}, append(many(50000), 0x7f, 0x0b)...)...),
			"more than 10000 locals"},
		"locals overflow": {
			code(append([]byte{2}, append(append(many(0xffffffff), 0x7f),
				append(many(0xffffffff), 0x7f, 0x0b)...)...)...), "locals"},
		"code behind end":     {code(0, 0x0b, 0x01, 0x0b), "continues for 2 bytes"},
		"unknown instruction": {code(0, 0xff, 0x0b), "unknown instruction 0xff"},
		"unknown 0xfc":        {code(0, 0xfc, 0x30, 0x0b), "unknown instruction 0xfc 48"},
		"else outside":        {code(0, 0x05, 0x0b), "else outside"},
		"block type":          {code(0, 0x02, 0x50, 0x0b), "a block of type 0x50, which is unknown"},
		"else outside of a block behind a tail call": {code(0, 0x12, 0, 0x05, 0x0b), "else outside"},
		"exceptions":       {code(0, 0x1f, 0x0b), "exceptions are not supported"},
		"atomics":          {code(0, 0xfe, 0, 0x0b), "threads (atomic instructions) are not supported"},
		"gc instruction":   {code(0, 0xfb, 0, 0x0b), "garbage collection and typed references are not supported"},
		"relaxed simd":     {code(0, 0xfd, 0x80, 0x02, 0x0b), "relaxed vector instructions"},
		"second memory":    {code(0, 0x3f, 1, 0x1a, 0x0b), "memory 1 is used"},
		"memarg of memory": {code(0, 0x41, 0, 0x28, 0x42, 0, 0, 0x1a, 0x0b), "several memories"},
		"constant overlong": {code(0, 0x41, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0x1a, 0x0b),
			"a constant is a LEB128 number of more than 5 bytes"},
		"constant overflow": {code(0, 0x41, 0xff, 0xff, 0xff, 0xff, 0x4f, 0x1a, 0x0b), "a constant overflows 32 bits"},
		"constant cut":      {code(0, 0x44, 0, 0x0b), "a constant has 8 bytes, but 2 remain"},
		"nesting": {code(append(append([]byte{0}, bytes.Repeat([]byte{0x02, 0x40}, 10001)...), 0x0b)...),
			"nested more than 10000 deep"},
		"endless constant": {join(section(6, append([]byte{1, 0x7f, 0}, bytes.Repeat([]byte{0x41, 0}, 600)...)...)),
			"more than 1024 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := wasmbin.Parse(c.in, wasmbin.DefaultLimits())
			if err == nil {
				err = m.CheckCode(wasmbin.DefaultLimits())
			}
			var e *wasmbin.Error
			if !errors.As(err, &e) || !strings.Contains(e.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A wrong count must cost nothing: the reader allocates nothing for it and refuses the module.
func TestLyingCountsAllocateNothing(t *testing.T) {
	for _, id := range []byte{1, 2, 3, 4, 5, 6, 7, 9, 10, 11} {
		b := section(id, append(wasmbin.AppendU32(nil, 0xfffffff0), make([]byte, 64)...)...)
		bytes := testing.AllocsPerRun(10, func() {
			if _, err := wasmbin.Parse(b, wasmbin.DefaultLimits()); err == nil {
				t.Fatal("accepted")
			}
		})
		if bytes > 20 {
			t.Errorf("section %d: %v allocations", id, bytes)
		}
	}
}

func TestFunctionNamesThatLieAreLeftOut(t *testing.T) {
	for name, content := range map[string][]byte{
		"count":       {1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"size":        {1, 100, 0},
		"order":       {1, 7, 2, 1, 1, 'a', 0, 1, 'b'},
		"rest":        {1, 6, 1, 0, 1, 'a', 0, 0},
		"not utf-8":   {1, 4, 1, 0, 1, 0xff},
		"locals only": {2, 1, 0},
	} {
		var b testguest.Builder
		b.Custom("name", content)
		if got := parse(t, b.Bytes()).FunctionNames(); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSignatures(t *testing.T) {
	a := wasmbin.FuncType{Params: testguest.Types(testguest.I32, testguest.I64),
		Results: testguest.Types(testguest.F64)}
	if a.String() != "(i32, i64) -> (f64)" {
		t.Error(a.String())
	}
	if !a.Equal(a) || a.Equal(wasmbin.FuncType{Params: a.Params}) {
		t.Error("equality of signatures")
	}
	long := wasmbin.FuncType{Params: make([]wasmbin.ValType, 900)}
	if len(long.String()) > 200 {
		t.Errorf("a long signature takes %d bytes to show", len(long.String()))
	}
}

func FuzzParse(f *testing.F) {
	f.Add(whole())
	f.Add(testguest.Counter("c"))
	f.Add(code(0, 0x03, 0x40, 0x0c, 0, 0x0b, 0x0b))
	f.Add(section(1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wasmbin.Parse(b, wasmbin.DefaultLimits())
		if err != nil {
			var e *wasmbin.Error
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(b) || e.Section == "" {
				t.Fatalf("error without a place: %#v", err)
			}
			return
		}
		_ = m.FunctionNames()
		for i := range m.Bodies {
			at := m.Bodies[i].Code.Start
			err := m.Walk(i, wasmbin.DefaultLimits(), func(in *wasmbin.Instr) {
				if in.Start != at || in.End <= in.Start {
					t.Fatalf("instruction at [%d:%d] follows one that ended at %d", in.Start, in.End, at)
				}
				at = in.End
			})
			if err == nil && at != m.Bodies[i].Code.End {
				t.Fatalf("walk ended at %d of %d", at, m.Bodies[i].Code.End)
			}
		}
		w := wasmbin.NewWriter(len(b))
		for _, s := range m.Sections {
			w.Raw(m.Slice(s.Entry))
		}
		if !bytes.Equal(w.Bytes(), b) {
			t.Fatal("sections do not cover the module")
		}
	})
}

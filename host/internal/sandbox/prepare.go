package sandbox

import (
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// tableElements bounds a table, in elements of 8 bytes of the host's memory.
const tableElements = 100_000

// prepare writes the module that is compiled in place of the verified one.
// It behaves the same but for three things, and starts faster (see joinSegments):
//
//   - A function that calls others begins with an empty loop, unless it has a
//     loop before its first call. wazero looks for the end of a call's time at
//     loop heads only, so without it a tree of calls without any loop could run
//     for years, on a thread that not even the garbage collector can stop.
//   - Tables cannot grow beyond tableElements. wazero has no limit of its own.
//   - Custom sections are left out but for the names of functions, which have
//     been checked: wazero reads the name section and allocates by its counts.
func prepare(m *wasmbin.Module) ([]byte, error) {
	w := wasmbin.NewWriter(len(m.Bytes) + 4*len(m.Bodies) + 64)
	for _, s := range m.Sections {
		switch s.ID {
		case wasmbin.SectionCustom:
		case wasmbin.SectionTable:
			w.Section(s.ID, boundTables(m))
		case wasmbin.SectionCode:
			code, err := interruptible(m)
			if err != nil {
				return nil, err
			}
			w.Section(s.ID, code)
		case wasmbin.SectionData:
			if joined := joinSegments(m); joined != nil {
				w.Section(s.ID, joined)
			} else {
				w.Raw(m.Slice(s.Entry))
			}
		default:
			w.Raw(m.Slice(s.Entry))
		}
	}
	if names := m.FunctionNames(); names != nil {
		w.Custom("name", names)
	}
	return w.Bytes(), nil
}

func boundTables(m *wasmbin.Module) []byte {
	b := wasmbin.AppendU32(nil, uint32(len(m.Tables)))
	for _, t := range m.Tables {
		if !t.Size.HasMax || t.Size.Max > tableElements {
			t.Size.HasMax, t.Size.Max = true, tableElements
		}
		b = append(b, byte(t.Type))
		b = wasmbin.AppendLimit(b, t.Size)
	}
	return b
}

// emptyLoop is loop (no result) end: nothing but a loop head.
var emptyLoop = []byte{byte(wasmbin.OpLoop), 0x40, byte(wasmbin.OpEnd)}

// interruptible writes the code section's content with loop heads where they
// are missing.
func interruptible(m *wasmbin.Module) ([]byte, error) {
	code := wasmbin.AppendU32(make([]byte, 0, 4*len(m.Bodies)), uint32(len(m.Bodies)))
	for i, b := range m.Bodies {
		needed, err := needsLoop(m, i)
		if err != nil {
			return nil, err
		}
		if !needed {
			code = append(code, m.Slice(b.Entry)...)
			continue
		}
		declarations := m.Bytes[b.Declarations.Start:b.Declarations.End]
		code = wasmbin.AppendU32(code, uint32(len(declarations)+len(emptyLoop)+b.Code.Len()))
		code = append(code, declarations...)
		code = append(code, emptyLoop...)
		code = append(code, m.Slice(b.Code)...)
	}
	return code, nil
}

// needsLoop reports whether a function can call another one before it has come
// by a loop head. A function that calls none is as short as its own loops let it
// be. A loop in front of all branches and calls is on every way, also inside of
// blocks; that is how Go's compiler opens most functions.
func needsLoop(m *wasmbin.Module, function int) (bool, error) {
	calls, looped, branched := false, false, false
	err := m.Walk(function, wasmbin.Limits{}, func(in *wasmbin.Instr) {
		switch in.Op {
		case wasmbin.OpLoop:
			looped = looped || !branched
		case wasmbin.OpCall, wasmbin.OpCallIndirect:
			calls = true
			branched = true
		case wasmbin.OpIf, wasmbin.OpBr, wasmbin.OpBrIf, wasmbin.OpBrTable, wasmbin.OpReturn:
			branched = true
		}
	})
	return calls && !looped, err
}

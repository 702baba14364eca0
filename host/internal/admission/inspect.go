package admission

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// beyond is how many times the limits a module may have and still be read, so that every excess can be
// reported.
const beyond = 16

// Inspect reports what a module contains, and which rules and limits it breaks. Problems are not an error;
// they are in the result. rewriting says how the module would be rewritten.
func Inspect(module []byte, l service.Limits, rewriting metering.Options) *service.Inspection {
	i := &service.Inspection{Digest: service.DigestOf(module), Size: int64(len(module)), Problems: []string{}}
	i.Limits = []service.Measured{{Name: "bytes of the module", Value: uint64(len(module)),
		Limit: uint64(l.ModuleBytes)}}
	limits := binaryLimits(l)
	m, err := wasmbin.Parse(module, limits.Times(beyond))
	if err != nil {
		i.Problems = append(i.Problems, err.Error())
		return i
	}
	have, err := m.Measure()
	if err != nil {
		i.Problems = append(i.Problems, err.Error())
	}
	for n, q := range have.Quantities() {
		i.Limits = append(i.Limits, service.Measured{Name: q.Name, Value: q.Value, Limit: limits.Quantities()[n].Value})
	}
	for _, x := range i.Limits {
		if x.Value > x.Limit {
			i.Problems = append(i.Problems, fmt.Sprintf("%d %s; the limit is %d", x.Value, x.Name, x.Limit))
		}
	}
	for _, mem := range m.Memories { // rules reports one that is too large
		i.Limits = append(i.Limits, service.Measured{Name: "bytes of memory at start", Value: mem.Min * PageBytes,
			Limit: uint64(MemoryLimit(l))})
	}
	var v Violations
	v.rules(m, l)
	i.Problems = append(i.Problems, v.reasons...)
	describe(i, m)
	if metered, err := metering.Rewrite(m, rewriting); err == nil {
		i.Metering = &service.InspectedMetering{Tariff: metered.Tariff, Bytes: len(metered.Binary),
			Imageable: metered.Imageable, Why: metered.Why}
	} else {
		var list *metering.Error
		if errors.As(err, &list) {
			i.Problems = append(i.Problems, list.Reasons...)
		} else {
			i.Problems = append(i.Problems, err.Error())
		}
	}
	slices.Sort(i.Problems)
	i.Problems = slices.Compact(i.Problems)
	return i
}

// describe fills in what the module declares.
func describe(i *service.Inspection, m *wasmbin.Module) {
	for _, s := range m.Sections {
		name := s.ID.String()
		if s.ID == wasmbin.SectionCustom {
			name += " " + shortName(s.Name)
		}
		i.Sections = append(i.Sections, service.InspectedSection{Name: name, Bytes: s.Entry.Len()})
	}
	for _, x := range m.Imports {
		in := service.InspectedImport{Module: x.Module, Name: x.Name, Kind: x.Kind.String()}
		if x.Kind == wasmbin.ExternFunc {
			t := m.Types[x.Type]
			in.Type = t.String()
			want, ok := Signature(x.Module, x.Name)
			in.Offered = ok && t.Equal(want)
		}
		i.Imports = append(i.Imports, in)
	}
	for _, e := range m.Exports {
		ex := service.InspectedExport{Name: e.Name, Kind: e.Kind.String()}
		if t, ok := m.FuncTypeOf(e.Index); ok && e.Kind == wasmbin.ExternFunc {
			ex.Type = t.String()
		}
		i.Exports = append(i.Exports, ex)
	}
	code := &service.InspectedCode{Count: len(m.Bodies)}
	largest := -1
	for n, b := range m.Bodies {
		code.Bytes += int64(b.Entry.Len())
		if b.Code.Len() > code.Largest {
			code.Largest, largest = b.Code.Len(), n
		}
	}
	m.EachFunctionName(func(index uint32, name string) {
		if int64(index) == int64(largest)+int64(m.Imported(wasmbin.ExternFunc)) {
			code.Name = shortName(name)
		}
	})
	i.Functions = code
	size := func(l wasmbin.Limit, unit uint64) service.InspectedSize {
		s := service.InspectedSize{Min: l.Min * unit}
		if l.HasMax {
			highest := l.Max * unit
			s.Max = &highest
		}
		return s
	}
	for _, mem := range m.Memories {
		s := size(mem, PageBytes)
		i.Memory = &s
	}
	for _, t := range m.Tables {
		i.Tables = append(i.Tables, size(t.Size, 1))
	}
	i.Data = &service.InspectedData{Segments: len(m.Data)}
	for _, d := range m.Data {
		i.Data.Bytes += int64(d.Init.Len())
	}
}

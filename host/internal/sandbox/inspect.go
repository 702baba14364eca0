package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Inspection is all that can be told about a module. What cannot be known, as the
// module is not well-formed or does not start, is not there.
type Inspection struct {
	Digest   service.Digest `json:"digest"`
	Size     int64          `json:"size"`     // bytes
	Problems []string       `json:"problems"` // why it would be refused; none if it would not
	Limits   []Measured     `json:"limits"`   // what it has of what is limited

	Sections  []InspectedSection `json:"sections,omitempty"`
	Imports   []InspectedImport  `json:"imports,omitempty"`
	Exports   []InspectedExport  `json:"exports,omitempty"`
	Functions *InspectedCode     `json:"functions,omitempty"`
	Memory    *InspectedSize     `json:"memory,omitempty"` // in bytes
	Tables    []InspectedSize    `json:"tables,omitempty"` // in elements
	Data      *InspectedData     `json:"data,omitempty"`

	Metering *InspectedMetering `json:"metering,omitempty"` // there if it can be rewritten
	Start    *InspectedStart    `json:"start,omitempty"`    // there if it starts
	Manifest *abi.Manifest      `json:"-"`                  // there if it starts
}

// Measured is how much a module has of something that is limited.
type Measured struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
	Limit uint64 `json:"limit"`
}

// InspectedSection is one section of the file.
type InspectedSection struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

// InspectedImport is one import.
type InspectedImport struct {
	Module  string `json:"module"`
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Type    string `json:"type,omitempty"` // of a function
	Offered bool   `json:"offered"`        // by this host, with that type
}

// InspectedExport is one export.
type InspectedExport struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Type string `json:"type,omitempty"` // of a function
}

// InspectedCode is what the functions are.
type InspectedCode struct {
	Count   int    `json:"count"`
	Bytes   int64  `json:"bytes"`
	Largest int    `json:"largest_bytes"`
	Name    string `json:"largest_name,omitempty"` // of the largest, if it has one
}

// InspectedSize is the size of a memory or a table.
type InspectedSize struct {
	Min uint64  `json:"min"`
	Max *uint64 `json:"max,omitempty"`
}

// InspectedData is what the data segments are.
type InspectedData struct {
	Segments int   `json:"segments"`
	Bytes    int64 `json:"bytes"`
}

// InspectedMetering is what becomes of a module when it is rewritten.
type InspectedMetering struct {
	Tariff    int    `json:"tariff"` // the version of what fuel is charged by
	Bytes     int    `json:"bytes"`  // of the rewritten module
	Imageable bool   `json:"imageable"`
	Why       string `json:"why_not,omitempty"` // if it is not
}

// InspectedStart is what it takes to start a module.
type InspectedStart struct {
	Fuel        uint64 `json:"fuel"`                  // of its start function and _initialize
	MemoryBytes int64  `json:"memory_bytes"`          // after them
	ImageBytes  int64  `json:"image_bytes,omitempty"` // of what sandboxes begin as; 0 if they initialise themselves
}

// Inspect tells what a module is. That the module has problems is no error: they
// are in the result. If it has none so far it is compiled and started, to learn
// what only that can tell. progress may be nil.
func (r *Runtime) Inspect(ctx context.Context, module []byte, l service.Limits, progress func(stage Stage, done, total int64)) (*Inspection, error) {
	l = l.WithDefaults()
	if err := l.Validate(); err != nil {
		return nil, err
	}
	i := &Inspection{Digest: service.DigestOf(module), Size: int64(len(module)), Problems: []string{}}
	i.Limits = []Measured{{"bytes of the module", uint64(len(module)), uint64(l.ModuleBytes)}}
	m := i.look(module, l)
	if len(i.Problems) > 0 || m == nil {
		return i, nil
	}
	p, err := r.Compile(ctx, "", module, l, service.Settings{}, progress)
	if err != nil {
		return i, i.refused(err)
	}
	defer func() { _ = p.Close(ctx) }()
	s := p.Start()
	i.Start = &InspectedStart{Fuel: s.Fuel, MemoryBytes: s.MemoryBytes}
	if s.Image {
		i.Start.ImageBytes = s.MemoryBytes
	}
	manifest := p.Module().Manifest
	i.Manifest = &manifest
	return i, nil
}

// refused takes a refusal of the module into the inspection. Other errors remain.
func (i *Inspection) refused(err error) error {
	var e *service.Error
	if !errors.As(err, &e) || e.Kind != service.KindBadModule {
		return err
	}
	i.Problems = append(i.Problems, e.Reasons...)
	if len(e.Reasons) == 0 {
		i.Problems = append(i.Problems, e.Message)
	}
	return nil
}

// beyond is how far above the limits a module is still read, to tell all of what it
// has too much of.
const beyond = 16

// look takes in what stands in the module; nil if it is not well-formed.
func (i *Inspection) look(module []byte, l service.Limits) *wasmbin.Module {
	limits := binaryLimits(l)
	m, err := wasmbin.Parse(module, limits.Times(beyond))
	if err != nil {
		i.Problems = append(i.Problems, err.Error())
		return nil
	}
	have, err := m.Measure()
	if err != nil {
		i.Problems = append(i.Problems, err.Error())
	}
	for n, q := range have.Quantities() {
		i.Limits = append(i.Limits, Measured{q.Name, q.Value, limits.Quantities()[n].Value})
	}
	for _, x := range i.Limits {
		if x.Value > x.Limit {
			i.Problems = append(i.Problems, fmt.Sprintf("%d %s; the limit is %d", x.Value, x.Name, x.Limit))
		}
	}
	for _, mem := range m.Memories { // if it is too large, rules says so
		i.Limits = append(i.Limits, Measured{"bytes of memory at start", mem.Min * pageBytes, uint64(memoryLimit(l))})
	}
	var v verification
	v.rules(m, l)
	i.Problems = append(i.Problems, v.reasons...)
	i.describe(m)
	if metered, err := metering.Rewrite(m, orderOf(l, service.Settings{}).metering(len(module))); err == nil {
		i.Metering = &InspectedMetering{Tariff: metered.Tariff, Bytes: len(metered.Binary), Imageable: metered.Imageable, Why: metered.Why}
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
	return m
}

func (i *Inspection) describe(m *wasmbin.Module) {
	for _, s := range m.Sections {
		name := s.ID.String()
		if s.ID == wasmbin.SectionCustom {
			name += " " + shortName(s.Name)
		}
		i.Sections = append(i.Sections, InspectedSection{name, s.Entry.Len()})
	}
	for _, x := range m.Imports {
		in := InspectedImport{Module: x.Module, Name: x.Name, Kind: x.Kind.String()}
		if x.Kind == wasmbin.ExternFunc {
			t := m.Types[x.Type]
			in.Type = t.String()
			f, ok := offered[x.Module][x.Name]
			in.Offered = ok && t.Equal(f.signature())
		}
		i.Imports = append(i.Imports, in)
	}
	for _, e := range m.Exports {
		ex := InspectedExport{Name: e.Name, Kind: e.Kind.String()}
		if t, ok := m.FuncTypeOf(e.Index); ok && e.Kind == wasmbin.ExternFunc {
			ex.Type = t.String()
		}
		i.Exports = append(i.Exports, ex)
	}
	code := &InspectedCode{Count: len(m.Bodies)}
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
	size := func(l wasmbin.Limit, unit uint64) InspectedSize {
		s := InspectedSize{Min: l.Min * unit}
		if l.HasMax {
			most := l.Max * unit
			s.Max = &most
		}
		return s
	}
	for _, mem := range m.Memories {
		s := size(mem, pageBytes)
		i.Memory = &s
	}
	for _, t := range m.Tables {
		i.Tables = append(i.Tables, size(t.Size, 1))
	}
	i.Data = &InspectedData{Segments: len(m.Data)}
	for _, d := range m.Data {
		i.Data.Bytes += int64(d.Init.Len())
	}
}

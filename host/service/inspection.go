package service

import "github.com/bulkhead-wasm/bulkhead/abi"

// Inspection describes a module. What cannot be known, because the module is not well-formed or does not
// start, is nil.
type Inspection struct {
	Digest   Digest     `json:"digest"`
	Size     int64      `json:"size"`     // bytes
	Problems []string   `json:"problems"` // reasons to refuse it; empty if there are none
	Limits   []Measured `json:"limits"`   // its use of everything that is limited

	Sections  []InspectedSection `json:"sections,omitempty"`
	Imports   []InspectedImport  `json:"imports,omitempty"`
	Exports   []InspectedExport  `json:"exports,omitempty"`
	Functions *InspectedCode     `json:"functions,omitempty"`
	Memory    *InspectedSize     `json:"memory,omitempty"` // in bytes
	Tables    []InspectedSize    `json:"tables,omitempty"` // in elements
	Data      *InspectedData     `json:"data,omitempty"`

	Metering *InspectedMetering `json:"metering,omitempty"` // nil unless it can be rewritten
	Start    *InspectedStart    `json:"start,omitempty"`    // nil unless it starts
	Manifest *abi.Manifest      `json:"-"`                  // nil unless it starts
}

// Measured is how much a module uses of something that is limited.
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

// InspectedCode describes the functions.
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

// InspectedData describes the data segments.
type InspectedData struct {
	Segments int   `json:"segments"`
	Bytes    int64 `json:"bytes"`
}

// InspectedMetering is the result of rewriting a module.
type InspectedMetering struct {
	Tariff    int    `json:"tariff"` // version of the tariff by which fuel is charged
	Bytes     int    `json:"bytes"`  // of the rewritten module
	Imageable bool   `json:"imageable"`
	Why       string `json:"why_not,omitempty"` // the reason, if it is not
}

// InspectedStart is what a module needs to start.
type InspectedStart struct {
	Fuel        uint64 `json:"fuel"`                  // of its start function and _initialize
	MemoryBytes int64  `json:"memory_bytes"`          // after these
	ImageBytes  int64  `json:"image_bytes,omitempty"` // of the image; 0: none
}

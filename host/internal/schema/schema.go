// Package schema checks the data of commands and queries against the JSON Schemas of a module.
//
// A module's schema is untrusted in two ways: it may exhaust the host when it is compiled, or when
// it is applied to data made for that purpose. So it must be within the bounds below before the
// library compiles it, and the library's result is converted into a plan of this package, which
// walks over the bytes of the data. The library's validator is not run on data: it first decodes
// all of it, collects an error for each violation, cannot be stopped, and panics on 1e1000001
// beside a minimum. A plan allocates nothing for data that fits, stops at the first violation, lets
// others run, and ends after a number of steps that is linear in the size of the data. Tests and
// FuzzSchema compare the verdicts of both.
package schema

import (
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Bounds of one schema.
const (
	MaxBytes    = 64 << 10 // of its text
	MaxValues   = 10_000   // in it, of any type
	MaxDepth    = 64       // of arrays and objects
	MaxNodes    = 2_000    // number of subschemas
	MaxLooks    = 256      // how many of its subschemas may examine the same value
	MaxPattern  = 1_000    // instructions of one regular expression
	MaxPatterns = 10_000   // instructions of all of them
	MaxDigits   = 100      // of a number in it, which has an exponent of at most MaxExponent
	MaxExponent = 400
)

// MaxSetBytes bounds what all schemas of a module take in memory.
const MaxSetBytes = 16 << 20

// Bounds of the data.
const (
	maxNesting = 500     // of what a schema describes
	maxCalls   = 2_000   // of schemas within each other, for the same value or what is in it
	maxNumber  = 1_000   // characters of a number that a schema looks at
	maxUnique  = 65_536  // elements that have to be unique
	perByte    = 64      // steps of a check for each byte of data
	freeSteps  = 1 << 20 // additional steps of a check
)

// Set holds the schemas of a module's commands and queries. It is immutable and safe for concurrent
// use. A nil Set accepts anything.
type Set struct {
	commands, queries []*Schema
	bytes             int64
}

// Bytes estimates the memory of the schemas in bytes.
func (s *Set) Bytes() int64 {
	if s == nil {
		return 0
	}
	return s.bytes
}

// Compile compiles the input schemas of a manifest. Each schema that cannot be used adds a reason,
// which names the command or query and the place in the schema. If there are reasons, the Set is
// nil. rest is called between two schemas to let others run; its error ends the work and is
// returned. Services whose data is not JSON have no schemas.
func Compile(m *abi.Manifest, rest func() error) (*Set, []string, error) {
	if m.Encoding != "" && !service.IsJSON(m.Encoding) {
		return nil, nil, nil
	}
	s := &Set{commands: make([]*Schema, len(m.Commands)), queries: make([]*Schema, len(m.Queries))}
	var reasons []string
	var stop error
	compile := func(what, list string, i int, name, text string) *Schema {
		if stop != nil || s.bytes > MaxSetBytes {
			return nil
		}
		one, err := New(what+" "+name, text)
		if one != nil {
			s.bytes += one.bytes
		}
		if err == nil && s.bytes > MaxSetBytes {
			err = fmt.Errorf("with it the schemas of the module take more than %d bytes in memory", MaxSetBytes)
		}
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%s[%d].input, of the %s %q, cannot be used: %v",
				list, i, what, name, err))
		}
		if one != nil || err != nil {
			stop = rest()
		}
		return one
	}
	for i, c := range m.Commands {
		s.commands[i] = compile("command", "commands", i, c.Name, c.Input)
	}
	for i, q := range m.Queries {
		s.queries[i] = compile("query", "queries", i, q.Name, q.Input)
	}
	if len(reasons) > 0 || stop != nil {
		return nil, reasons, stop
	}
	return s, nil, nil
}

// Command returns the schema of the command with the given number; nil accepts anything.
func (s *Set) Command(n uint16) *Schema {
	if s == nil || int(n) >= len(s.commands) {
		return nil
	}
	return s.commands[n]
}

// Query returns the schema of the query with the given number; nil accepts anything.
func (s *Set) Query(n uint16) *Schema {
	if s == nil || int(n) >= len(s.queries) {
		return nil
	}
	return s.queries[n]
}

// Schema is a compiled schema. It is immutable and safe for concurrent use.
type Schema struct {
	what  string // it is of, such as "command deposit"
	root  *node
	bytes int64 // in memory, about
}

// New compiles a schema. It returns nil for a schema that accepts anything (no text, true, {}).
func New(what, text string) (*Schema, error) {
	root, bytes, err := compile(text)
	if root == nil || err != nil {
		return nil, err
	}
	return &Schema{what, root, bytes}, nil
}

// Check checks data against the schema. The error has KindInvalid and a Pointer to the first
// violation, or KindTooLarge if the check would take too long. Empty data is checked as {} and as
// null, and passes if either fits.
//
// rest, which may be nil, is called after a few microseconds and then about every tenth of a
// millisecond, to let others run. Its error ends the check and is returned. took estimates, from
// the number of steps, how long the check ran before it first called rest. Most checks end before
// that, and are too short to be measured.
func (s *Schema) Check(data []byte, rest func() error) (took time.Duration, err error) {
	c := checks.Get().(*check)
	defer c.free()
	if len(data) > 0 {
		err = c.run(s, data, rest)
		return c.took, err
	}
	if err = c.run(s, emptyObject, rest); err == nil || c.run(s, null, rest) == nil {
		return c.took, nil
	}
	if e, ok := err.(*service.Error); ok && e.Pointer != nil {
		e.Message = "there is no data, and " + e.Message
	}
	return c.took, err
}

var emptyObject, null = []byte("{}"), []byte("null")

var checks = sync.Pool{New: func() any { return newCheck() }}

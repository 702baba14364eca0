// Package jsonplan is the JSON codec of guests. A plan is made once for each type, by
// reflection. Encoding and decoding then walk memory by offsets: without reflection, without
// package state, and without allocation other than for the values themselves.
//
// It speaks the JSON of encoding/json, with these differences:
//   - Field names match exactly.
//   - Strings are not escaped for HTML. Map keys must be UTF-8.
//   - A time whose zone offset has seconds is written in UTC.
//   - Interfaces, embedded pointers, channels, functions and complex numbers are refused when
//     the plan is made.
//   - Map keys are sorted and NaN is an error, so equal values have equal bytes.
//   - Types with a text form in both directions, such as time.Time, netip.Addr and big.Int, are
//     JSON strings. A type that has only a JSON form of its own is refused, as walking its
//     memory would lose its meaning.
//   - An integer may be written in any way that is whole, such as 1.0 or 1e3.
//
// There are three ways to read. [Plan.Decode] is for events, which have happened: it ignores
// what it does not know. [Plan.DecodeInput] is for commands and queries: unknown and missing
// members are errors. [Plan.DecodeWhole] is for state that [Plan.Append] has written, perhaps
// in another build: it accepts only the form of this type.
//
// Why a codec of our own: measured in a module (BenchmarkCodecInGuest in host/hosttest),
// encoding/json takes about four times as long for a command of 200 bytes, its event and its
// reply, with 18 allocations instead of 11. It also makes the module a third larger and slower
// to start. GOEXPERIMENT=jsonv2 was no faster, and larger still.
package jsonplan

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
	"unsafe"
)

// maxDepth bounds nesting in both directions: of input, and of values, which pointers can make
// endless.
const maxDepth = 64

// Errors of encoding and decoding.
var (
	ErrSyntax = errors.New("json: malformed")
	ErrRange  = errors.New("json: number does not fit its field")
	ErrWhole  = errors.New("json: number is not whole")
	ErrLength = errors.New("json: array does not have as many elements as its field")
	ErrType   = errors.New("json: value has another type than its field")
	ErrDepth  = errors.New("json: nested too deep")
	ErrFloat  = errors.New("json: NaN and infinity have no form")

	// Errors of strict decoding.
	ErrUnknown = errors.New("json: there is no such member")
	ErrTwice   = errors.New("json: the member appears twice")
	ErrMissing = errors.New("json: the member is missing")
	ErrText    = errors.New("json: text is not UTF-8")
)

// Plan encodes and decodes values of one type. It may be used concurrently.
type Plan struct {
	typ    reflect.Type
	append func(b []byte, p unsafe.Pointer, depth int) ([]byte, error)
	decode func(d *decoder, p unsafe.Pointer) error
	// schema writes the schema without the closing brace. limits are those of the values in it.
	schema func(s *schema, limits []keyword)
	own    []keyword // of the schema, unless tags replace them
	unit   string    // of numbers, for people
	fields []field   // of a struct
	elem   *Plan     // of a pointer, slice, array or map
	wide   bool      // a signed integer of eight bytes
	// spare is the decoder of an earlier call. Making one for each call would be most of the
	// cost of decoding a small value.
	spare atomic.Pointer[decoder]
}

var timeType = reflect.TypeFor[time.Time]()

// Maker makes plans and remembers them, as types refer to each other. It is for one goroutine.
type Maker struct {
	plans map[reflect.Type]*Plan
	noted []*Plan // structs of which tags have values that are not checked yet
}

// Make returns the plan of a type, or an error that names the part that has no JSON form.
func (m *Maker) Make(t reflect.Type) (*Plan, error) {
	if m.plans == nil {
		m.plans = map[reflect.Type]*Plan{}
	}
	p, problem := m.plan(t)
	if problem == "" {
		problem = m.later()
	}
	if problem != "" {
		return nil, errors.New("json: " + problem)
	}
	return p, nil
}

// later checks the values in tags, which needs the plans of all types.
func (m *Maker) later() (problem string) {
	for _, p := range m.noted {
		for i := range p.fields {
			f := &p.fields[i]
			if problem = f.later(); problem != "" {
				return "field " + p.typ.String() + "." + f.name + ": " + problem
			}
		}
	}
	m.noted = nil
	return ""
}

// Append appends the JSON of the value at v to b. The value must be of the plan's type.
func (p *Plan) Append(b []byte, v unsafe.Pointer) ([]byte, error) { return p.append(b, v, 0) }

// Decode reads one JSON value into the value at v, and nothing may follow it. Unknown members
// are skipped; if a name appears twice, the last one counts; null leaves the value unchanged.
// After an error the value is partly set.
func (p *Plan) Decode(b []byte, v unsafe.Pointer) error { return p.read(b, v, lenient) }

// DecodeInput is Decode, but strict, as [Plan.InputSchema] describes: every member is known and
// appears once, required members are there, null is allowed only where the type has a nil, and
// text is UTF-8. The value at v must be the zero value.
func (p *Plan) DecodeInput(b []byte, v unsafe.Pointer) error { return p.read(b, v, asInput) }

// DecodeWhole is Decode of what Append wrote for this type, or for a type of the same form:
// every member is known and appears once, members that Append always writes are there, null is
// allowed only where the type has a nil, and text is UTF-8. The value at v must be the zero
// value.
func (p *Plan) DecodeWhole(b []byte, v unsafe.Pointer) error { return p.read(b, v, asWhole) }

// Optional reports whether DecodeInput accepts an empty object, or null, for the type. If so, a
// body of no bytes may mean the zero value.
func (p *Plan) Optional() bool {
	switch {
	case isText(p.typ):
		return false
	case p.typ.Kind() == reflect.Struct:
		return !slices.ContainsFunc(p.fields, func(f field) bool { return f.required(asInput) })
	}
	return p.typ.Kind() == reflect.Pointer || p.typ.Kind() == reflect.Slice || p.typ.Kind() == reflect.Map
}

func (p *Plan) read(b []byte, v unsafe.Pointer, mode mode) error {
	d := p.spare.Swap(nil)
	if d == nil {
		d = new(decoder)
	}
	d.b, d.i, d.depth, d.mode = b, 0, 0, mode
	err := p.decode(d, v)
	if err == nil && d.i != len(d.b) {
		if d.space(); d.i != len(d.b) {
			err = ErrSyntax
		}
	}
	d.b = nil // it belongs to the caller
	p.spare.Store(d)
	return err
}

// plan returns the plan of t. If there is none, problem says why.
func (m *Maker) plan(t reflect.Type) (_ *Plan, problem string) {
	if p := m.plans[t]; p != nil {
		return p, ""
	}
	p := &Plan{typ: t}
	m.plans[t] = p // before its parts, which may refer back to it
	if isText(t) {
		planText(p)
		return p, ""
	}
	if problem = ownForm(t); problem != "" {
		delete(m.plans, t)
		return p, problem
	}
	switch t.Kind() {
	case reflect.Bool:
		planBool(p)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		planInt(p)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		planUint(p)
	case reflect.Float32, reflect.Float64:
		planFloat(p)
	case reflect.String:
		planString(p)
	case reflect.Pointer:
		problem = m.planPointer(p)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 && !isText(t.Elem()) {
			planBytes(p)
		} else {
			problem = m.planSlice(p)
		}
	case reflect.Array:
		problem = m.planArray(p)
	case reflect.Map:
		problem = m.planMap(p)
	case reflect.Struct:
		problem = m.planStruct(p)
	default:
		problem = t.String() + " has no JSON form here; use a concrete type"
	}
	if problem != "" {
		delete(m.plans, t)
	}
	return p, problem
}

type (
	appendTexter interface {
		AppendText(b []byte) ([]byte, error)
	}
	marshalTexter   interface{ MarshalText() ([]byte, error) }
	unmarshalTexter interface{ UnmarshalText(text []byte) error }
	jsonMarshaler   interface{ MarshalJSON() ([]byte, error) }
	jsonUnmarshaler interface{ UnmarshalJSON(text []byte) error }
)

// has reports whether *T has the methods of I.
func has[I any](t reflect.Type) bool { return reflect.PointerTo(t).Implements(reflect.TypeFor[I]()) }

// isText reports whether t is written as text and read back from it.
func isText(t reflect.Type) bool {
	return t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface &&
		has[unmarshalTexter](t) && (has[appendTexter](t) || has[marshalTexter](t))
}

// ownForm says why a type with methods for JSON or text cannot be walked field by field: it
// has these methods because its fields are not its meaning.
func ownForm(t reflect.Type) (problem string) {
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface {
		return ""
	}
	const remedy = "; give it MarshalText or AppendText, and UnmarshalText"
	switch {
	case has[jsonMarshaler](t) || has[jsonUnmarshaler](t):
		return t.String() + " has a JSON form of its own (MarshalJSON, UnmarshalJSON), which is not spoken here" +
			remedy
	case has[unmarshalTexter](t):
		return t.String() + " has UnmarshalText and no way to write text" + remedy
	case has[appendTexter](t) || has[marshalTexter](t):
		return t.String() + " is written as text and has no UnmarshalText" + remedy
	}
	return ""
}

func planText(p *Plan) {
	t := p.typ
	if t == timeType {
		planTime(p)
		return
	}
	direct := has[appendTexter](t)
	p.append = func(b []byte, v unsafe.Pointer, _ int) ([]byte, error) {
		value := reflect.NewAt(t, v).Interface()
		var text []byte
		var err error
		if direct {
			text, err = value.(appendTexter).AppendText(nil)
		} else {
			text, err = value.(marshalTexter).MarshalText()
		}
		if err != nil {
			return b, err
		}
		return appendString(b, string(text)), nil
	}
	p.decode = decodeText(func(v unsafe.Pointer, s []byte) error {
		return reflect.NewAt(t, v).Interface().(unmarshalTexter).UnmarshalText(s)
	})
	p.schema = fixed(`{"type":"string"`)
	if format := textFormat(t); format != "" {
		p.own = []keyword{{"format", quoted(format), textShape}}
	}
}

// decodeText reads a string and passes it to set, which makes a value of it.
func decodeText(set func(v unsafe.Pointer, s []byte) error) func(*decoder, unsafe.Pointer) error {
	return func(d *decoder, v unsafe.Pointer) error {
		if d.left() {
			return nil
		}
		s, err := d.str()
		if err != nil {
			return err
		}
		return set(v, s)
	}
}

// planTime is planText for times. RFC 3339 has no seconds in zone offsets, so a time in such a
// zone is written in UTC; otherwise it would be wrong by these seconds.
func planTime(p *Plan) {
	p.append = func(b []byte, v unsafe.Pointer, _ int) ([]byte, error) {
		t := *(*time.Time)(v)
		if _, offset := t.Zone(); offset%60 != 0 {
			t = t.UTC()
		}
		text, err := t.AppendText(append(b, '"'))
		if err != nil {
			return b, err
		}
		return append(text, '"'), nil
	}
	p.decode = decodeText(func(v unsafe.Pointer, s []byte) error { return (*time.Time)(v).UnmarshalText(s) })
	p.schema = fixed(`{"type":"string"`)
	p.own = []keyword{{"format", `"date-time"`, textShape}}
}

// element makes the plan of p's elements.
func (m *Maker) element(p *Plan) (elem *Plan, problem string) {
	p.elem, problem = m.plan(p.typ.Elem())
	return p.elem, problem
}

func (m *Maker) planPointer(p *Plan) string {
	elem, problem := m.element(p)
	if problem != "" {
		return problem
	}
	p.append = func(b []byte, v unsafe.Pointer, depth int) ([]byte, error) {
		q := *(*unsafe.Pointer)(v)
		switch {
		case q == nil:
			return append(b, "null"...), nil
		case depth >= maxDepth:
			return b, ErrDepth
		}
		return elem.append(b, q, depth+1)
	}
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		if d.null() {
			*(*unsafe.Pointer)(v) = nil
			return nil
		}
		// A type made only of pointers would otherwise recurse without reading anything.
		if err := d.enter(); err != nil {
			return err
		}
		defer d.leave()
		q := *(*unsafe.Pointer)(v)
		if q == nil {
			q = reflect.New(elem.typ).UnsafePointer()
			*(*unsafe.Pointer)(v) = q
		}
		return elem.decode(d, q)
	}
	p.schema = func(s *schema, limits []keyword) {
		s.raw(`{"anyOf":[`)
		s.plan(elem, nil, limits)
		s.raw(`,{"type":"null"}]`)
	}
	return ""
}

// none is the address of slices without elements.
var none struct{}

// sliceHeader is the memory of a slice.
type sliceHeader struct {
	data     unsafe.Pointer
	len, cap int
}

func (m *Maker) planSlice(p *Plan) string {
	elem, problem := m.element(p)
	if problem != "" {
		return problem
	}
	t, size := p.typ, p.typ.Elem().Size()
	// Growing a slice takes as long as a dozen elements, and most values of a type are alike.
	// So the first memory has room for as many elements as the slice before. Each guess is
	// used once, or else nested slices would all be as large as a long one before them.
	const minGuess, maxGuess = 4, 64
	var guess atomic.Int32
	guess.Store(minGuess)
	p.append = func(b []byte, v unsafe.Pointer, depth int) ([]byte, error) {
		s := (*sliceHeader)(v)
		if s.data == nil {
			return append(b, "null"...), nil
		}
		return appendElements(b, elem, s.data, s.len, size, depth)
	}
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		if d.null() {
			reflect.NewAt(t, v).Elem().SetZero()
			return nil
		}
		s := (*sliceHeader)(v)
		s.len = 0
		old := s.cap // elements below may hold old values
		more, err := d.open('[', ']')
		for n := 0; more && err == nil; n++ {
			if n == 0 && s.cap == 0 {
				first := int(guess.Swap(minGuess))
				s.data, s.cap = reflect.MakeSlice(t, first, first).UnsafePointer(), first
			} else if n == s.cap {
				reflect.NewAt(t, v).Elem().Grow(max(n, 4)) // new elements are zero
			}
			s.len = n + 1
			if n < old {
				reflect.NewAt(t, v).Elem().Index(n).SetZero()
			}
			if err := elem.decode(d, unsafe.Add(s.data, uintptr(n)*size)); err != nil {
				return within(err, n, "")
			}
			if !d.comma() {
				more, err = d.more(']')
			}
		}
		guess.Store(int32(min(max(s.len, minGuess), maxGuess)))
		if s.data == nil {
			s.data = unsafe.Pointer(&none)
		}
		return err
	}
	p.schema = func(s *schema, limits []keyword) {
		s.raw(`{"type":["array","null"],"items":`)
		s.plan(elem, nil, limits)
	}
	return ""
}

func appendElements(b []byte, elem *Plan, data unsafe.Pointer, n int, size uintptr, depth int) ([]byte, error) {
	if depth >= maxDepth {
		return b, ErrDepth
	}
	b = append(b, '[')
	var err error
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = elem.append(b, unsafe.Add(data, uintptr(i)*size), depth+1); err != nil {
			return b, within(err, i, "")
		}
	}
	return append(b, ']'), nil
}

func (m *Maker) planArray(p *Plan) string {
	elem, problem := m.element(p)
	if problem != "" {
		return problem
	}
	n, size := p.typ.Len(), p.typ.Elem().Size()
	p.append = func(b []byte, v unsafe.Pointer, depth int) ([]byte, error) {
		return appendElements(b, elem, v, n, size, depth)
	}
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		if d.left() {
			return nil
		}
		i := 0
		more, err := d.open('[', ']')
		for ; more && err == nil; i++ {
			if i >= n {
				return ErrLength
			}
			if err := elem.decode(d, unsafe.Add(v, uintptr(i)*size)); err != nil {
				return within(err, i, "")
			}
			more, err = d.more(']')
		}
		if err == nil && i != n {
			return ErrLength
		}
		return err
	}
	p.schema = func(s *schema, limits []keyword) {
		s.raw(`{"type":"array","items":`)
		s.plan(elem, nil, limits)
		s.raw(`,"minItems":`)
		s.int(n)
		s.raw(`,"maxItems":`)
		s.int(n)
	}
	return ""
}

func (m *Maker) planMap(p *Plan) string {
	t := p.typ
	if t.Key().Kind() != reflect.String || isText(t.Key()) {
		return t.String() + " has keys that are not plain strings"
	}
	elem, problem := m.element(p)
	if problem != "" {
		return problem
	}
	p.append = func(b []byte, v unsafe.Pointer, depth int) ([]byte, error) {
		mv := reflect.NewAt(t, v).Elem()
		if mv.IsNil() {
			return append(b, "null"...), nil
		}
		if depth >= maxDepth {
			return b, ErrDepth
		}
		keys := mv.MapKeys()
		sortKeys(keys)
		b = append(b, '{')
		slot := reflect.New(t.Elem())
		var err error
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			if name := k.String(); !utf8.ValidString(name) { // two keys could become one
				return b, within(ErrText, -1, strings.ToValidUTF8(name, "\ufffd"))
			}
			b = append(appendString(b, k.String()), ':')
			slot.Elem().Set(mv.MapIndex(k))
			if b, err = elem.append(b, slot.UnsafePointer(), depth+1); err != nil {
				return b, within(err, -1, k.String())
			}
		}
		return append(b, '}'), nil
	}
	p.decode = func(d *decoder, v unsafe.Pointer) error {
		mv := reflect.NewAt(t, v).Elem()
		if d.null() {
			mv.SetZero()
			return nil
		}
		if mv.IsNil() {
			mv.Set(reflect.MakeMap(t))
		}
		more, err := d.open('{', '}')
		for more && err == nil {
			name, err := d.name()
			if err != nil {
				return err
			}
			key := reflect.New(t.Key()).Elem()
			key.SetString(string(name))
			if d.mode != lenient && mv.MapIndex(key).IsValid() {
				return within(ErrTwice, -1, key.String())
			}
			value := reflect.New(t.Elem())
			if err := elem.decode(d, value.UnsafePointer()); err != nil {
				return within(err, -1, key.String())
			}
			mv.SetMapIndex(key, value.Elem())
			if more, err = d.more('}'); err != nil {
				return err
			}
		}
		return err
	}
	p.schema = func(s *schema, limits []keyword) {
		s.raw(`{"type":["object","null"],"additionalProperties":`)
		s.plan(elem, nil, limits)
	}
	return ""
}

// sortKeys sorts map keys by their bytes, without the sort package.
func sortKeys(keys []reflect.Value) {
	if len(keys) < 2 {
		return
	}
	mid := keys[len(keys)/2].String()
	i, j := 0, len(keys)-1
	for i <= j {
		for strings.Compare(keys[i].String(), mid) < 0 {
			i++
		}
		for strings.Compare(keys[j].String(), mid) > 0 {
			j--
		}
		if i <= j {
			keys[i], keys[j] = keys[j], keys[i]
			i++
			j--
		}
	}
	sortKeys(keys[:j+1])
	sortKeys(keys[i:])
}

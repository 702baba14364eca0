package jsonplan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"
)

// order is a command whose members cover each rule about required members.
type order struct {
	SKU    string            `json:"sku"`
	Count  int64             `json:"count"`
	Small  uint8             `json:"small,omitempty"`
	Note   *string           `json:"note"`
	Tags   []string          `json:"tags"`
	Extra  map[string]part   `json:"extra,omitzero"`
	Parts  []part            `json:"parts,omitempty"`
	Pair   [2]bool           `json:"pair,omitempty"`
	Raw    []byte            `json:"raw,omitempty"`
	When   time.Time         `json:"when,omitzero"`
	Price  float64           `json:"price,omitzero"`
	Labels map[string]string `json:"labels,omitempty"`
	part
}

type part struct {
	Width int    `json:"width"`
	Inner *part  `json:"inner"`
	Kind  string `json:"kind,omitempty"`
}

const minimal = `"sku":"a","count":1,"tags":null,"width":2`

// decodeInput reads strictly into a new value.
func decodeInput[T any](t testing.TB, b string) (v T, err error) {
	t.Helper()
	return v, plan[T](t).DecodeInput([]byte(b), reflect.ValueOf(&v).UnsafePointer())
}

func TestInputIsStrict(t *testing.T) {
	for _, c := range [][2]string{
		{`{` + minimal + `}`, ""},
		{`{` + minimal + `,"note":null,"inner":null,"labels":null,"parts":null,"raw":null}`, ""},
		{`{` + minimal + `,"inner":{"width":1,"inner":{"width":1}},"extra":{"a":{"width":1}}}`, ""},
		{`{"count":1,"tags":[],"width":2}`, "json: sku: the member is missing"},
		{`{` + minimal + `,"inner":{}}`, "json: inner.width: the member is missing"},
		{`{` + minimal + `,"parts":[{"width":1},{"kind":"b"}]}`, "json: parts[1].width: the member is missing"},
		{`{` + minimal + `,"extra":{"a":{"width":1,"Width":1}}}`, "json: extra.a.Width: there is no such member"},
		{`{` + minimal + `,"SKU":"b"}`, "json: SKU: there is no such member"},
		{`{` + minimal + `,"sku":"b"}`, "json: sku: the member appears twice"},
		{`{` + minimal + `,"s\u006bu":"b"}`, "json: sku: the member appears twice"},
		{`{` + minimal + `,"labels":{"a":"","a":""}}`, "json: labels.a: the member appears twice"},
		{`{` + minimal + `,"` + strings.Repeat("é", 50) + `":1}`,
			"json: " + strings.Repeat("é", 32) + ": there is no such member"},
		{`{` + minimal + `,"a` + strings.Repeat("é", 50) + `":1}`,
			"json: a" + strings.Repeat("é", 31) + ": there is no such member"},
		{`{"sku":null,"count":1,"tags":null,"width":2}`, "json: sku: value has another type than its field"},
		{`{` + minimal + `,"small":null}`, "json: small: value has another type than its field"},
		{`{` + minimal + `,"pair":null}`, "json: pair: value has another type than its field"},
		{`{` + minimal + `,"when":null}`, "json: when: value has another type than its field"},
		{`{` + minimal + `,"price":null}`, "json: price: value has another type than its field"},
		{`{` + minimal + `,"parts":[null]}`, "json: parts[0]: value has another type than its field"},
		{`null`, "json: value has another type than its field"},
		{``, "json: malformed"},
		{`{}`, "json: sku: the member is missing"},
		{`{"sku":"` + "\xff" + `","count":1}`, "json: sku: text is not UTF-8"},
		{`{"sku":"\ud800","count":1}`, "json: sku: text is not UTF-8"},
		{`{"sku":"\ud800\u0041","count":1}`, "json: sku: text is not UTF-8"},
		{`{"s` + "\xff" + `":1}`, "json: text is not UTF-8"},
		{`{"sku":"\ud83d\ude00","count":1.50e1,"tags":null,"width":2e0,"note":"` + "\ufffd" + `"}`, ""},
		{`{"sku":"a","count":1.5,"tags":null,"width":2}`, "json: count: number is not whole"},
		{`{"sku":"a","count":1,"tags":null,"width":2,"small":2.56e2}`, "json: small: number does not fit its field"},
		{`{"sku":"a","count":1,"tags":null,"width":2,"small":255.0}`, ""},
		{`{"sku":"a","count":-0,"tags":null,"width":2,"small":-0.0}`, ""},
		{`{"sku":"a","count":1e` + strings.Repeat("9", 400) + `,"tags":null,"width":2}`,
			"json: count: number does not fit its field"},
		{`{"sku":"a","count":1e-` + strings.Repeat("9", 400) + `,"tags":null,"width":2}`,
			"json: count: number is not whole"},
		{`{"sku":"a","count":0e` + strings.Repeat("9", 400) + `,"tags":null,"width":2,"small":0e-99}`, ""},
	} {
		in, want := c[0], c[1]
		_, err := decodeInput[order](t, in)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s\n got  %q\n want %q", in, got, want)
		}
		if !utf8.ValidString(got) {
			t.Errorf("%q is not UTF-8", got)
		}
	}
}

// In a struct of more than 64 members, each member is checked.
func TestManyMembers(t *testing.T) {
	var fields []reflect.StructField
	var members []string
	for i := range 130 {
		fields = append(fields, reflect.StructField{Name: fmt.Sprintf("F%d", i), Type: reflect.TypeFor[int]()})
		members = append(members, fmt.Sprintf(`"F%d":%d`, i, i))
	}
	typ := reflect.StructOf(fields)
	p, err := new(Maker).Make(typ)
	if err != nil {
		t.Fatal(err)
	}
	read := func(members []string) error {
		return p.DecodeInput([]byte("{"+strings.Join(members, ",")+"}"), reflect.New(typ).UnsafePointer())
	}
	if err := read(members); err != nil {
		t.Error(err)
	}
	for i := range members {
		if err := read(slices.Delete(slices.Clone(members), i, i+1)); !errors.Is(err, ErrMissing) ||
			!strings.Contains(err.Error(), fmt.Sprintf("F%d:", i)) {
			t.Errorf("without %d: %v", i, err)
		}
		if err := read(append(slices.Clone(members), members[i])); !errors.Is(err, ErrTwice) ||
			!strings.Contains(err.Error(), fmt.Sprintf("F%d:", i)) {
			t.Errorf("%d twice: %v", i, err)
		}
	}
}

func TestOptional(t *testing.T) {
	for typ, want := range map[reflect.Type]bool{
		reflect.TypeFor[struct{}]():                     true,
		reflect.TypeFor[*int]():                         true,
		reflect.TypeFor[[]int]():                        true,
		reflect.TypeFor[map[string]int]():               true,
		reflect.TypeFor[struct{ A *int }]():             true,
		reflect.TypeFor[struct{ A int }]():              false,
		reflect.TypeFor[int]():                          false,
		reflect.TypeFor[string]():                       false,
		reflect.TypeFor[time.Time]():                    false,
		reflect.TypeFor[struct{ A struct{} }]():         false,
		reflect.TypeFor[struct{ P *struct{ A int } }](): true,
		reflect.TypeFor[struct {
			S string `json:",omitzero"`
		}](): true,
	} {
		p, err := new(Maker).Make(typ)
		if err != nil {
			t.Fatal(err)
		}
		v := reflect.New(typ).UnsafePointer()
		taken := p.DecodeInput([]byte("{}"), v) == nil || p.DecodeInput([]byte("null"), v) == nil
		if got := p.Optional(); got != want || got != taken {
			t.Errorf("%v: %v, taken %v", typ, got, taken)
		}
	}
}

// Integers are read exactly, however they are written.
func TestWholeNumbers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	digit := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte("000123456789"[r.IntN(12)])
		}
		return b.String()
	}
	is, us := plan[int64](t), plan[uint64](t)
	for range 40_000 {
		text := []string{"", "-"}[r.IntN(2)]
		if n := r.IntN(22); n == 0 {
			text += "0"
		} else {
			text += string("123456789"[r.IntN(9)]) + digit(n-1)
		}
		if r.IntN(2) == 0 {
			text += "." + digit(1+r.IntN(22))
		}
		if r.IntN(2) == 0 {
			text += []string{"e", "E"}[r.IntN(2)] + []string{"", "+", "-"}[r.IntN(3)] +
				fmt.Sprintf("%0*d", 1+r.IntN(3), r.IntN(25))
		}
		exact, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatal(text)
		}
		var i int64
		var u uint64
		iErr, uErr := is.Decode([]byte(text), unsafe.Pointer(&i)), us.Decode([]byte(text), unsafe.Pointer(&u))
		switch {
		case !exact.IsInt():
			// The part before the point may be too large, which is a valid reason too.
			if iErr == nil || uErr == nil {
				t.Fatalf("%s is not whole: %v, %v", text, iErr, uErr)
			}
		case exact.Num().IsInt64() != (iErr == nil) || exact.Num().IsUint64() != (uErr == nil):
			t.Fatalf("%s: %v, %v", text, iErr, uErr)
		case iErr == nil && i != exact.Num().Int64() || uErr == nil && u != exact.Num().Uint64():
			t.Fatalf("%s: %d, %d", text, i, u)
		}
	}
}

// Types with a method that says what zero is.
type (
	byValue   struct{ N int }
	byPointer struct{ N int }
	never     int
	always    string
	listed    []int
)

func (v byValue) IsZero() bool    { return v.N == 7 }
func (v *byPointer) IsZero() bool { return v.N == 7 }
func (never) IsZero() bool        { return false }
func (always) IsZero() bool       { return true }
func (l listed) IsZero() bool     { return len(l) == 1 }

// optional has members of each kind with each option.
type optional struct {
	Bool    bool           `json:"bool,omitzero"`
	Int     int16          `json:"int,omitzero"`
	Uint    uint64         `json:"uint,omitzero"`
	Float   float32        `json:"float,omitzero"`
	String  string         `json:"string,omitzero"`
	Slice   []int          `json:"slice,omitzero"`
	Map     map[string]int `json:"map,omitzero"`
	Ptr     *int           `json:"ptr,omitzero"`
	Array   [2]int         `json:"array,omitzero"`
	Empty   [0]int         `json:"empty,omitempty"`
	Struct  embedded       `json:"struct,omitzero"`
	Kept    embedded       `json:"kept,omitempty"`
	Time    time.Time      `json:"time,omitzero"`
	Addr    netip.Addr     `json:"addr,omitzero"`
	Big     big.Int        `json:"big,omitzero"`
	Value   byValue        `json:"value,omitzero"`
	Values  *byValue       `json:"values,omitzero"`
	Pointer byPointer      `json:"pointer,omitzero"`
	Points  *byPointer     `json:"points,omitzero"`
	Never   never          `json:"never,omitzero"`
	Either  never          `json:"either,omitempty,omitzero"`
	Always  always         `json:"always,omitzero"`
	Listed  listed         `json:"listed,omitzero"`
	Both    []int          `json:"both,omitempty,omitzero"`
	Name    name           `json:"name,omitempty"`
	Level   level          `json:"level,omitempty"`
	IP      ip             `json:"ip,omitempty"`
	Blob    []byte         `json:"blob,omitzero"`
}

// Text types of kinds that have empty values.
type (
	level int
	ip    []byte
)

func (l level) MarshalText() ([]byte, error) { return fmt.Append(nil, "L", int(l)), nil }
func (l *level) UnmarshalText(b []byte) error {
	_, err := fmt.Sscanf(string(b), "L%d", (*int)(l))
	return err
}
func (i ip) MarshalText() ([]byte, error)  { return i, nil }
func (i *ip) UnmarshalText(b []byte) error { *i = append(ip{}, b...); return nil }

// fill makes a value from bytes; each byte decides about one member.
func (o *optional) fill(b []byte) {
	next := func() int {
		if len(b) == 0 {
			return 0
		}
		n := b[0]
		b = b[1:]
		return int(n % 9)
	}
	ints := func() []int { return [][]int{nil, {}, {0}, {1, 2}, {7}, nil, {}, {0}, {0}}[next()] }
	ref := func(n int) *int { return []*int{nil, &n}[min(n, 1)] }
	o.Bool, o.Int, o.Uint = next() > 4, int16(next()), uint64(next())
	o.Float = []float32{0, float32(math.Copysign(0, -1)), 1, 0, 1e-9, 0, 2, 0, 3}[next()]
	o.String = strings.Repeat("s", next())
	o.Slice, o.Both, o.Listed = ints(), ints(), ints()
	o.Map = []map[string]int{nil, {}, {"": 0}, nil, {}, nil, {}, nil, {"a": 1}}[next()]
	o.Ptr = ref(next())
	o.Array = [2]int{0, next() / 4}
	o.Struct.Count, o.Kept.E = uint16(next()/4), next() > 4
	if next() > 4 {
		o.Time = time.Unix(int64(next()), 0).UTC()
	}
	if next() > 4 {
		o.Addr = netip.AddrFrom4([4]byte{1, 2, 3, byte(next())})
	}
	o.Big.SetInt64(int64(next()))
	o.Value.N, o.Pointer.N = next(), next()
	if next() > 4 {
		o.Values, o.Points = &byValue{next()}, &byPointer{next()}
	}
	o.Never, o.Either = never(next()), never(next()/4)
	o.Always, o.Name = always(strings.Repeat("a", next()/4)), name(strings.Repeat("n", next()/4))
	o.Level = level(next() / 4)
	o.IP = []ip{nil, {}, {'1'}, nil, {}, nil, nil, {'2'}, {}}[next()]
	o.Blob = [][]byte{nil, {}, {1}, nil, {}, nil, nil, {2}, {}}[next()]
}

// omitempty and omitzero leave out what encoding/json leaves out.
func FuzzOmitted(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
	f.Add(bytes.Repeat([]byte{7}, 40))
	f.Add([]byte{8, 7, 6, 5, 4, 3, 2, 1, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0, 8, 7, 6, 5, 4, 3})
	f.Fuzz(func(t *testing.T, in []byte) {
		var v optional
		v.fill(in)
		got, err := encode(t, &v)
		if err != nil {
			t.Fatal(err)
		}
		// encoding/json writes big.Int as a number.
		want := standard(t, &struct {
			*optional
			Big *big.Int `json:"big,omitzero"`
		}{optional: &v})
		want = strings.Replace(want, `,"big":`+v.Big.String(), "", 1)
		ours := strings.Replace(string(got), `"big":"`+v.Big.String()+`",`, "", 1)
		if ours != want {
			t.Fatalf("\n got  %s\n want %s", ours, want)
		}
		var whole optional
		if err := plan[optional](t).DecodeWhole(got, unsafe.Pointer(&whole)); err != nil {
			t.Fatalf("%s is not whole: %v", got, err)
		}
	})
}

// node is a JSON value with all its members, in order and with repetitions.
type node struct {
	value   any // nil, bool, json.Number, string, []node or []member
	members []member
	items   []node
}

type member struct {
	name  string
	value node
}

func parse(t testing.TB, d *json.Decoder) node {
	token := func() json.Token {
		tok, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	var n node
	switch n.value = token(); n.value {
	case json.Delim('{'):
		for d.More() {
			name := token().(string)
			n.members = append(n.members, member{name, parse(t, d)})
		}
		token()
	case json.Delim('['):
		for d.More() {
			n.items = append(n.items, parse(t, d))
		}
		token()
	}
	return n
}

// fits checks the part of JSON Schema that input schemas use, and that no name appears twice.
func fits(schema map[string]any, anchors map[string]map[string]any, n node) bool {
	if ref, ok := schema["$ref"].(string); ok {
		return fits(anchors[strings.TrimPrefix(ref, "#")], anchors, n)
	}
	if name, ok := schema["$anchor"].(string); ok {
		anchors[name] = schema
	}
	if any, ok := schema["anyOf"].([]any); ok {
		return slices.ContainsFunc(any,
			func(s interface{}) bool { return fits(s.(map[string]interface{}), anchors, n) })
	}
	types, ok := schema["type"].([]any)
	if !ok {
		types = []any{schema["type"]}
	}
	is := func(name string) bool { return slices.Contains(types, any(name)) }
	switch v := n.value.(type) {
	case nil:
		return is("null")
	case bool:
		return is("boolean")
	case string:
		return is("string")
	case json.Number:
		exact, _ := new(big.Rat).SetString(v.String())
		if is("integer") && (!exact.IsInt() || schema["minimum"] != nil && exact.Sign() < 0) {
			return false
		}
		return is("integer") || is("number")
	}
	if n.value == json.Delim('[') {
		minimal, ok := schema["minItems"].(float64)
		if !is("array") || ok && len(n.items) != int(minimal) {
			return false
		}
		for _, item := range n.items {
			if !fits(schema["items"].(map[string]any), anchors, item) {
				return false
			}
		}
		return true
	}
	if !is("object") {
		return false
	}
	seen := map[string]bool{}
	properties, _ := schema["properties"].(map[string]any)
	for _, m := range n.members {
		of, ok := properties[m.name].(map[string]any)
		if !ok {
			of, ok = schema["additionalProperties"].(map[string]any)
		}
		if !ok || seen[m.name] || !fits(of, anchors, m.value) {
			return false
		}
		seen[m.name] = true
	}
	required, _ := schema["required"].([]any)
	return !slices.ContainsFunc(required, func(name any) bool { return !seen[name.(string)] })
}

// DecodeInput accepts exactly what the input schema describes, and gives the value that lenient
// decoding gives.
func FuzzDecodeInput(f *testing.F) {
	for _, in := range []string{
		`{` + minimal + `}`,
		`{` + minimal + `,"inner":{"width":1,"inner":{"width":1}},"extra":{"a":{"width":1}},"parts":[{"width":1.0}]}`,
		`{` + minimal + `,"sku":1}`, `{` + minimal + `,"labels":{"a":"","a":""}}`, `{"sku":null}`,
		`{` + minimal + `,"pair":[true]}`,
		`{` + minimal + `,"small":-1e0,"raw":"AAE=","when":"2026-01-02T03:04:05Z","price":1e400,"note":"\ud800"}`,
		`{` + minimal + `,"x":1}`,
	} {
		f.Add(in)
	}
	p := plan[order](f)
	var schema map[string]any
	if err := json.Unmarshal([]byte(p.InputSchema()), &schema); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := decodeInput[order](t, in)
		switch {
		case err == nil && (!json.Valid([]byte(in)) || !utf8.ValidString(in)):
			t.Fatalf("%q is taken", in)
		case !json.Valid([]byte(in)) || errors.Is(err, ErrRange) || errors.Is(err, ErrDepth) || errors.Is(err, ErrText):
			return
		case err != nil && (strings.Contains(err.Error(), "when") || strings.Contains(err.Error(), "raw")):
			return // the schema does not describe their text
		}
		if len(in) > 10_000 || strings.ContainsAny(in, "eE") &&
			slices.ContainsFunc(strings.Split(strings.ToLower(in), "e"), func(s string) bool {
				return len(s) > 4 && strings.Trim(s[:4], "+-0123456789") == ""
			}) {
			return // too large for exact fractions
		}
		d := json.NewDecoder(strings.NewReader(in))
		d.UseNumber()
		if want := fits(schema, map[string]map[string]any{}, parse(t, d)); want != (err == nil) {
			t.Fatalf("%s: %v; by the schema %v", in, err, want)
		}
		if err != nil {
			return
		}
		var loose order
		if err := decode(t, in, &loose); err != nil {
			t.Fatalf("%s is not taken leniently: %v", in, err)
		}
		if a, b := standard(t, got), standard(t, loose); a != b {
			t.Fatalf("%s\n is %s\n leniently %s", in, a, b)
		}
	})
}

// A state that DecodeWhole accepts is written as it was read, and can be read again.
func FuzzDecodeWhole(f *testing.F) {
	p := plan[order](f)
	n := "note"
	for _, v := range []order{{}, {SKU: "é", Note: &n, Tags: []string{}, Extra: map[string]part{"a": {Kind: "k"}},
		Raw: []byte{1}}} {
		b, err := p.Append(nil, unsafe.Pointer(&v))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	for _, in := range []string{`{` + minimal + `}`, `{}`, `null`,
		`{"sku":"","count":1,"tags":[],"width":0,"inner":null,"note":null,"pair":[true,false]}`} {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var first, second, loose order
		if p.DecodeWhole([]byte(in), unsafe.Pointer(&first)) != nil {
			return
		}
		if err := p.Decode([]byte(in), unsafe.Pointer(&loose)); err != nil || !json.Valid([]byte(in)) ||
			!utf8.ValidString(in) {
			t.Fatalf("%q is taken: %v", in, err)
		}
		b, err := p.Append(nil, unsafe.Pointer(&first))
		if err != nil || Replaced(b) {
			t.Fatalf("%q became %q, %v", in, b, err)
		}
		if err := p.DecodeWhole(b, unsafe.Pointer(&second)); err != nil {
			t.Fatalf("%q became %q, which is refused: %v", in, b, err)
		}
		again, err := p.Append(nil, unsafe.Pointer(&second))
		if err != nil || string(again) != string(b) {
			t.Fatalf("%q became %q and then %q, %v", in, b, again, err)
		}
		// Members that are always written.
		for _, member := range []string{"sku", "count", "note", "tags", "pair", "width", "inner"} {
			if !strings.Contains(in, `"`) || strings.Count(in, `"`+member+`"`) == 0 && !strings.Contains(in, `\u`) {
				t.Fatalf("%q is taken without %s", in, member)
			}
		}
	})
}

func TestInputSchemas(t *testing.T) {
	type twice struct {
		A, B *part
		List list
	}
	for got, want := range map[string]string{
		plan[part](
			t).Schema(): `{"$anchor":"t1","type":"object","properties":{"width":{"type":"integer"},` +
			`"inner":{"anyOf":[{"$ref":"#t1"},{"type":"null"}]},"kind":{"type":"string"}}}`,
		plan[part](
			t).InputSchema(): `{"$anchor":"t1","type":"object","properties":{"width":{"type":"integer"},` +
			`"inner":{"anyOf":[{"$ref":"#t1"},{"type":"null"}]},"kind":{"type":"string"}},` +
			`"required":["width"],"additionalProperties":false}`,
		plan[struct{}](t).InputSchema(): `{"type":"object","properties":{},"additionalProperties":false}`,
		plan[twice](t).InputSchema(): `{"type":"object","properties":{` +
			`"A":{"$anchor":"t1","anyOf":[` +
			`{"type":"object","properties":{"width":{"type":"integer"},"inner":{"$ref":"#t1"},` +
			`"kind":{"type":"string"}},"required":["width"],"additionalProperties":false},{"type":"null"}]},` +
			`"B":{"$anchor":"t2","anyOf":[` +
			`{"type":"object","properties":{"width":{"type":"integer"},"inner":{"$ref":"#t2"},` +
			`"kind":{"type":"string"}},"required":["width"],"additionalProperties":false},{"type":"null"}]},` +
			`"List":{"$anchor":"t3","type":["array","null"],"items":{"$ref":"#t3"}}},"required":["List"],` +
			`"additionalProperties":false}`,
	} {
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// list has nothing but itself in it.
type list []list

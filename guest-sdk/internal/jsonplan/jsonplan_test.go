package jsonplan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

type inner struct {
	A int    `json:"a"`
	B string `json:"b,omitempty"`
}

type name string

type embedded struct {
	E     bool
	Count uint16
}

// Embedded is exported, so that a pointer to it can be set.
type Embedded struct{ X int }

// all has a field of each kind that plans support.
type all struct {
	embedded
	I8     int8              `json:"i8"`
	I16    int16             `json:"i16"`
	I32    int32             `json:"i32"`
	I64    int64             `json:"i64"`
	I      int               `json:"i"`
	U8     uint8             `json:"u8"`
	U16    uint16            `json:"u16"`
	U32    uint32            `json:"u32"`
	U64    uint64            `json:"u64"`
	F32    float32           `json:"f32"`
	F64    float64           `json:"f64"`
	Bool   bool              `json:"bool"`
	S      string            `json:"s"`
	Name   name              `json:"name"`
	Bytes  []byte            `json:"bytes"`
	Ints   []int             `json:"ints"`
	Names  []name            `json:"names,omitempty"`
	Array  [3]int            `json:"array"`
	Map    map[string]inner  `json:"map"`
	Maps   map[name][]string `json:"maps,omitempty"`
	Inner  inner             `json:"inner"`
	Inners []inner           `json:"inners"`
	Ptr    *inner            `json:"ptr"`
	Omit   *int              `json:"omit,omitempty"`
	Time   time.Time         `json:"time"`
	Skip   int               `json:"-"`
	Empty  struct{}          `json:"empty"`
	Eleven uint32            `json:"a_name_of_11"`
	More   string            `json:"a name of more than sixteen bytes"`
}

func plan[T any](t testing.TB) *Plan {
	t.Helper()
	p, err := new(Maker).Make(reflect.TypeFor[T]())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func encode[T any](t testing.TB, v *T) ([]byte, error) {
	return plan[T](t).Append(nil, reflect.ValueOf(v).UnsafePointer())
}

func decode[T any](t testing.TB, b string, v *T) error {
	return plan[T](t).Decode([]byte(b), reflect.ValueOf(v).UnsafePointer())
}

// standard returns what encoding/json writes, without its escapes for HTML.
func standard(t testing.TB, v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	s := strings.TrimSuffix(b.String(), "\n")
	// Two code points that encoding/json escapes for JavaScript, and two short forms.
	return strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029", `\b`, `\u0008`, `\f`, `\u000c`).Replace(s)
}

func values() []all {
	n := 7
	return []all{
		{},
		{I8: math.MinInt8, I16: math.MinInt16, I32: math.MinInt32, I64: math.MinInt64, I: -1,
			U8: math.MaxUint8, U16: math.MaxUint16, U32: math.MaxUint32, U64: math.MaxUint64},
		{I8: math.MaxInt8, I16: math.MaxInt16, I32: math.MaxInt32, I64: math.MaxInt64, F32: math.MaxFloat32,
			F64: math.MaxFloat64},
		{F32: 1e-7, F64: 1e-7}, {F32: 1e21, F64: 1e21}, {F32: 0.1, F64: 0.1}, {F64: -1e-9}, {F64: 5e-324},
		{F64: 123456789.125},
		{S: "a\"\\\n\r\t\b\f\x00\x1f\x7f<>&é世\u2028\u2029\U0001f600\xff\xed\xa0\x80", Name: "n"},
		{Bytes: []byte{}, Ints: []int{}, Names: []name{}, Map: map[string]inner{}, Maps: map[name][]string{}},
		{Bytes: []byte{0, 1, 255}, Ints: []int{3, -2}, Names: []name{"x"}, Array: [3]int{1, 2, 3},
			Map:   map[string]inner{"b": {A: 1}, "a": {B: "x"}, "": {}, "\"": {}},
			Maps:  map[name][]string{"k": nil, "j": {"v"}},
			Inner: inner{A: 1, B: "b"}, Inners: []inner{{}, {A: 2}}, Ptr: &inner{A: 3}, Omit: &n,
			Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), embedded: embedded{true, 9}, Skip: 6},
	}
}

// A plan writes what encoding/json writes, and both read it alike.
func TestSameAsEncodingJSON(t *testing.T) {
	for _, v := range values() {
		want := standard(t, v)
		got, err := encode(t, &v)
		if err != nil || string(got) != want {
			t.Errorf("%+v:\n got  %s, %v\n want %s", v, got, err, want)
			continue
		}
		var ours, theirs all
		if err := decode(t, want, &ours); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if err := json.Unmarshal([]byte(want), &theirs); err != nil {
			t.Fatal(err)
		}
		if a, b := standard(t, ours), standard(t, theirs); a != b {
			t.Errorf("%s is read as\n %s, by encoding/json as\n %s", want, a, b)
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	for in, want := range map[string]error{
		`{"i8":128}`: ErrRange, `{"i8":-129}`: ErrRange, `{"u8":256}`: ErrRange, `{"u8":-1}`: ErrRange,
		`{"i64":9223372036854775808}`:  ErrRange,
		`{"u64":18446744073709551616}`: ErrRange, `{"i":1.5}`: ErrWhole, `{"i":1e-3}`: ErrWhole,
		`{"f64":1e999}`:   ErrRange,
		`{"array":[1,2]}`: ErrLength, `{"array":[1,2,3,4]}`: ErrLength,
		`{"i":"1"}`: ErrType, `{"s":1}`: ErrType, `{"bool":0}`: ErrType, `{"inner":[]}`: ErrType,
		`{"ints":{}}`: ErrType, `{"bytes":"?"}`: ErrType, `[]`: ErrType,
		``: ErrSyntax, `{`: ErrSyntax, `{}x`: ErrSyntax, `{"i":01}`: ErrSyntax, `{"i":-}`: ErrSyntax,
		`{"i":1,}`: ErrSyntax, `{,}`: ErrSyntax, `{"i" 1}`: ErrSyntax,
		`{"s":"` + "\n" + `"}`: ErrSyntax, `{"s":"\x"}`: ErrSyntax, `{"s":"\u12"}`: ErrSyntax, `{"s":"`: ErrSyntax,
		`{"bool":tru}`: ErrSyntax, `{"x":nul}`: ErrSyntax,
		`{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`: ErrDepth,
	} {
		var v all
		if err := decode(t, in, &v); !errors.Is(err, want) {
			t.Errorf("%s gives %v, want %v", in, err, want)
		}
	}
	nan := math.NaN()
	if _, err := encode(t, &nan); !errors.Is(err, ErrFloat) {
		t.Errorf("NaN: %v", err)
	}
	type loop struct{ Next *loop }
	var l loop
	l.Next = &l
	if _, err := encode(t, &l); !errors.Is(err, ErrDepth) {
		t.Errorf("a loop of pointers: %v", err)
	}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[any](), reflect.TypeFor[chan int](), reflect.TypeFor[func()](), reflect.TypeFor[complex64](),
		reflect.TypeFor[map[int]int](), reflect.TypeFor[[]any](), reflect.TypeFor[struct{ E error }](),
		reflect.TypeFor[*map[bool]int](),
		reflect.TypeFor[struct{ *inner }](), reflect.TypeFor[[]struct{ *Embedded }](),
		reflect.TypeFor[struct {
			N int `json:",string"`
		}](),
	} {
		if _, err := new(Maker).Make(typ); err == nil {
			t.Errorf("there is a plan for %v", typ)
		}
	}
}

// half has a text form in one direction only; rich has a form in JSON only.
type half struct{ n int }

func (h half) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(h.n), 10), nil }

type rich struct{ n int }

func (r *rich) UnmarshalJSON(b []byte) error { r.n = len(b); return nil }

// old has the kind of text form that existed before AppendText.
type old struct{ n int }

func (o old) MarshalText() ([]byte, error)        { return strconv.AppendInt(nil, int64(o.n), 10), nil }
func (o *old) UnmarshalText(b []byte) (err error) { o.n, err = strconv.Atoi(string(b)); return err }

// Types with a form of their own keep their meaning or are refused. Walking their memory would
// write {} for all of them.
func TestTypesWithTheirOwnForm(t *testing.T) {
	type all struct {
		Big  big.Int
		Ptr  *big.Int
		Addr netip.Addr
		Old  []old
	}
	in := all{Ptr: big.NewInt(-7), Addr: netip.MustParseAddr("::1"), Old: []old{{1}, {2}}}
	in.Big.SetString("123456789012345678901234567890", 10)
	b, err := encode(t, &in)
	if want := `{"Big":"123456789012345678901234567890","Ptr":"-7","Addr":"::1","Old":["1","2"]}`; err != nil ||
		string(b) != want {
		t.Fatalf("got %s, %v, want %s", b, err, want)
	}
	var out all
	if err := decode(t, string(b), &out); err != nil || out.Big.Cmp(&in.Big) != 0 || out.Ptr.Cmp(in.Ptr) != 0 ||
		out.Addr != in.Addr || !slices.Equal(out.Old, in.Old) {
		t.Errorf("%s is read as %+v, %v", b, out, err)
	}
	for typ, want := range map[reflect.Type]string{
		reflect.TypeFor[half]():            "jsonplan.half is written as text and has no UnmarshalText",
		reflect.TypeFor[[]rich]():          "jsonplan.rich has a JSON form of its own",
		reflect.TypeFor[json.RawMessage](): "json.RawMessage has a JSON form of its own",
	} {
		if _, err := new(Maker).Make(typ); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", typ, err, want)
		}
	}
}

func TestLost(t *testing.T) {
	type inner struct{ n int }
	_ = inner{}.n
	type recursive struct {
		Next *recursive
		_    int
		Gap  [0]inner
	}
	for typ, want := range map[reflect.Type]string{
		reflect.TypeFor[all]():                 "",
		reflect.TypeFor[recursive]():           "",
		reflect.TypeFor[time.Time]():           "",
		reflect.TypeFor[inner]():               "jsonplan.inner.n",
		reflect.TypeFor[map[string][]*inner](): "jsonplan.inner.n",
		reflect.TypeFor[struct{ inner }]():     "jsonplan.inner.n",
		reflect.TypeFor[struct{ embedded }]():  "",
		reflect.TypeFor[struct {
			embedded `json:"e"`
		}](): "struct { jsonplan.embedded \"json:\\\"e\\\"\" }.embedded",
		reflect.TypeFor[struct {
			Cache inner `json:"-"`
		}](): "",
		reflect.TypeFor[struct{ *inner }](): "struct { *jsonplan.inner }.inner",
	} {
		if got := Lost(typ); got != want {
			t.Errorf("%v loses %q, want %q", typ, got, want)
		}
	}
}

func TestNullAndDuplicates(t *testing.T) {
	n := 1
	v := all{I: 5, S: "s", Ints: []int{1}, Map: map[string]inner{"a": {}}, Ptr: &inner{}, Omit: &n, Inner: inner{A: 2}}
	if err := decode(t, `{"i":null,"s":null,"ints":null,"map":null,"ptr":null,"omit":null,"inner":null,"i8":1,"i8":2}`,
		&v); err != nil {
		t.Fatal(err)
	}
	if v.I != 5 || v.S != "s" || v.Ints != nil || v.Map != nil || v.Ptr != nil || v.Omit != nil || v.Inner.A != 2 ||
		v.I8 != 2 {
		t.Errorf("%+v", v)
	}
}

// Old elements of a slice do not show up, whether its memory is reused or grows, and elements of
// one array do not affect each other.
func TestSlicesAreUsedAgain(t *testing.T) {
	type pair struct{ A, B int }
	stale := []pair{{9, 9}, {9, 9}, {9, 9}}
	for used := range 4 {
		v := append([]pair{}, stale...)[:used]
		if err := decode(t, `[{"A":1,"B":2},{"A":3},{"B":4},{},{"A":5},{}]`, &v); err != nil {
			t.Fatal(err)
		}
		if want := []pair{{1, 2}, {3, 0}, {0, 4}, {}, {5, 0}, {}}; !reflect.DeepEqual(v, want) {
			t.Errorf("%d before: %v, want %v", used, v, want)
		}
		if err := decode(t, `[]`, &v); err != nil || v == nil || len(v) != 0 {
			t.Errorf("%v, %v", v, err)
		}
	}
}

type tree struct {
	Children      []tree
	A, B, C, D, E int64
}

// Memory is proportional to the input, in whatever order slices of different lengths come and
// nest.
func TestSlicesTakeMemoryInProportion(t *testing.T) {
	p := plan[[]tree](t)
	long := `{"Children":[` + strings.Repeat("{},", 63) + `{}]}`
	deep := strings.Repeat(`{"Children":[`, 28) + "{}" + strings.Repeat("]}", 28)
	in := []byte("[" + strings.Repeat(long+","+deep+",", 100) + "{}]")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var v []tree
	if err := p.Decode(in, reflect.ValueOf(&v).UnsafePointer()); err != nil || len(v) != 201 {
		t.Fatal(len(v), err)
	}
	runtime.ReadMemStats(&after)
	// Four trees of 64 bytes for each 15 bytes of input are 17 for each byte; growing doubles it.
	if n := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(in)); n > 60 {
		t.Errorf("%.0f bytes for each byte of the input", n)
	}
}

// Integers of every length, also longer than their type holds.
func TestLongIntegers(t *testing.T) {
	for digits := 1; digits <= 21; digits++ {
		for _, text := range []string{"1" + strings.Repeat("0", digits-1), strings.Repeat("9", digits),
			"0" + strings.Repeat("1", digits)} {
			for _, sign := range []string{"", "-"} {
				var ours, theirs struct {
					I int64
					U uint64
				}
				in := fmt.Sprintf(`{"I":%s%s,"U":%s}`, sign, text, text)
				ourErr, theirErr := decode(t, in, &ours), json.Unmarshal([]byte(in), &theirs)
				if (ourErr == nil) != (theirErr == nil) || ourErr == nil && ours != theirs {
					t.Errorf("%s: %+v, %v; encoding/json %+v, %v", in, ours, ourErr, theirs, theirErr)
				}
			}
		}
	}
}

// Names of every length that has its own way of comparing: complete, with one byte changed, and
// cut at the end of the input.
func TestNamesOfEveryLength(t *testing.T) {
	for n := 1; n <= 20; n++ {
		name := strings.Repeat("abcdefg", 3)[:n]
		typ := reflect.StructOf([]reflect.StructField{
			{Name: "A", Type: reflect.TypeFor[int](), Tag: reflect.StructTag(`json:"` + name + `"`)},
			{Name: "B", Type: reflect.TypeFor[int](), Tag: reflect.StructTag(`json:"` + name + `x"`)},
		})
		p, err := new(Maker).Make(typ)
		if err != nil {
			t.Fatal(err)
		}
		whole := `{"` + name + `":1,"` + name + `x":2}`
		check := func(in string) {
			ours, theirs := reflect.New(typ), reflect.New(typ)
			ourErr, theirErr := p.Decode([]byte(in), ours.UnsafePointer()),
				json.Unmarshal([]byte(in), theirs.Interface())
			if (ourErr == nil) != (theirErr == nil) || ourErr == nil &&
				!reflect.DeepEqual(ours.Interface(), theirs.Interface()) {
				t.Errorf("%s is %+v, %v; encoding/json %+v, %v", in, ours.Elem(), ourErr, theirs.Elem(), theirErr)
			}
		}
		check(whole)
		check(`{"` + name + `x":2,"` + name + `":1}`)
		for i := range whole {
			check(whole[:i])
			check(whole[:i] + " " + whole[i:])
			check(whole[:i] + "?" + whole[i+1:])
		}
	}
}

func TestSchemas(t *testing.T) {
	type tree struct {
		Leaf     string  `json:"leaf"`
		Children []*tree `json:"children"`
	}
	if got, want := plan[tree](t).Schema(),
		`{"$anchor":"t1","type":"object","properties":{"leaf":{"type":"string"},"children":{"type":["array","null"],`+
			`"items":{"anyOf":[{"$ref":"#t1"},{"type":"null"}]}}}}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if s := plan[all](t).Schema(); !json.Valid([]byte(s)) {
		t.Errorf("not JSON: %s", s)
	}
}

// For every input, encoding/json and the plan agree whether it is valid; if both accept it, they
// agree on the value.
func FuzzDecode(f *testing.F) {
	for _, v := range values() {
		b, err := encode(f, &v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"s":"\ud83d\ude00\ud83d\u0041","x":[{"y":null}],"ptr":{"a":1},"i":null}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var ours all
		err := decode(t, string(in), &ours)
		if err == nil && !json.Valid(in) {
			t.Fatalf("%q is no JSON", in)
		}
		if errors.Is(err, ErrSyntax) && json.Valid(in) {
			t.Fatalf("%q is JSON", in)
		}
		if err != nil {
			return
		}
		var theirs all
		if json.Unmarshal(in, &theirs) != nil {
			return
		}
		again, err := encode(t, &ours)
		if err != nil {
			t.Fatal(err)
		}
		var back all
		if err := decode(t, string(again), &back); err != nil {
			t.Fatalf("%q became %q, which is refused: %v", in, again, err)
		}
		if a, b := standard(t, ours), standard(t, back); a != b {
			t.Fatalf("%q is %s, and after its own encoding %s", in, a, b)
		}
	})
}

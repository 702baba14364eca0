package jsonplan

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/quick"
	"time"
	"unsafe"
)

type exactPlain struct {
	B   bool
	I   int64
	U   uint8
	F   float64
	G   float32
	Opt int32 `json:",omitempty"`
	Sub struct {
		A [3]uint16
		exactInner
	}
	_   int
	Gap [0]string `json:"-"`
}

type exactInner struct {
	Set bool `json:"set,omitzero"`
}

type exactText struct {
	Name  name
	Names [2]string
	exactPlain
	Note string `json:",omitempty"`
}

func TestExactness(t *testing.T) {
	for typ, want := range map[reflect.Type]Exactness{
		reflect.TypeFor[exactPlain]():                 Exact,
		reflect.TypeFor[exactText]():                  ExactText,
		reflect.TypeFor[struct{}]():                   Exact,
		reflect.TypeFor[[2][2]int8]():                 Exact,
		reflect.TypeFor[[]int]():                      Unlike,
		reflect.TypeFor[*int]():                       Unlike,
		reflect.TypeFor[time.Time]():                  Unlike,
		reflect.TypeFor[level]():                      Unlike, // its text form may be anything
		reflect.TypeFor[[4]level]():                   Unlike,
		reflect.TypeFor[all]():                        Unlike,
		reflect.TypeFor[exactInner]():                 Exact,
		reflect.TypeFor[json.Number]():                ExactText,
		reflect.TypeFor[[]byte]():                     Unlike,
		reflect.TypeFor[map[int]bool]():               Unlike,
		reflect.TypeFor[struct{ M map[string]int }](): Unlike,
		reflect.TypeFor[struct{ P *exactPlain }]():    Unlike,
		reflect.TypeFor[struct{ S []exactPlain }]():   Unlike,
		reflect.TypeFor[struct{ T time.Time }]():      Unlike,
		reflect.TypeFor[struct{ n int }]():            Unlike, // never written
		reflect.TypeFor[struct{ embedded }]():         Exact,
		reflect.TypeFor[struct{ *embedded }]():        Unlike,
		reflect.TypeFor[struct{ time.Time }]():        Unlike,
		reflect.TypeFor[struct {
			F float64 `json:",omitempty"`
		}](): Unlike, // minus zero is left out
		reflect.TypeFor[struct {
			F float32 `json:",omitzero"`
		}](): Unlike,
		reflect.TypeFor[struct {
			N never `json:",omitzero"`
		}](): Unlike,
		reflect.TypeFor[struct {
			N never `json:",omitempty"`
		}](): Unlike,
		reflect.TypeFor[struct {
			V byValue `json:",omitzero"`
		}](): Unlike,
		reflect.TypeFor[struct{ V byPointer }](): Exact,
		reflect.TypeFor[struct {
			N int `json:"-"`
		}](): Unlike,
		reflect.StructOf([]reflect.StructField{
			{Name: "N", Type: reflect.TypeFor[int](), Tag: `json:"-,"`},
		}): Exact, // the name is "-"
		reflect.StructOf([]reflect.StructField{
			{Name: "Mark", Type: reflect.TypeFor[struct{}](), Tag: `json:"N"`},
			{Name: "N", Type: reflect.TypeFor[int]()},
		}): Unlike, // the member N is Mark
		reflect.StructOf([]reflect.StructField{
			{Name: "A", Type: reflect.TypeFor[int](), Tag: `json:"x"`},
			{Name: "B", Type: reflect.TypeFor[int](), Tag: `json:"x"`},
		}): Unlike, // neither is written
		reflect.TypeFor[struct {
			E bool
			embedded
		}](): Unlike, // the inner one is not written
	} {
		if got := exactness(typ); got != want {
			t.Errorf("%v: %d, want %d", typ, got, want)
		}
	}
}

// Types that are said to be exact are: every value's encoding is decoded to the same bits.
// Each other type must have a value that is not, or it is listed wrongly.
func TestExactTypesAreExact(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	floats := []float64{0, math.Copysign(0, -1), 1e21, 1e-7, math.MaxFloat64, math.SmallestNonzeroFloat64, 0.1, -1e-9}
	texts := []string{"", "a", "é", "\xff", "\ufffd", `\ufffd`, `\\ufffd`, "\xff\\", "<\u2028>", "x\xc3", "\x00\x1f\""}
	plain, text := plan[exactPlain](t), plan[exactText](t)
	for range 20_000 {
		v := exactText{exactPlain: exactPlain{
			B: r.IntN(2) == 0, I: int64(r.Uint64()), U: uint8(r.Uint64()), Opt: int32(r.IntN(3)),
			F: floats[r.IntN(len(floats))], G: float32(floats[r.IntN(len(floats)-4)]),
		}}
		if r.IntN(2) == 0 {
			v.F, v.G = math.Float64frombits(r.Uint64()), math.Float32frombits(r.Uint32())
		}
		if math.IsNaN(v.F) || math.IsInf(v.F, 0) || math.IsNaN(float64(v.G)) || math.IsInf(float64(v.G), 0) {
			continue
		}
		v.Sub.A[1], v.Sub.Set = uint16(r.Uint64()), r.IntN(2) == 0
		pick := func() string { return texts[r.IntN(len(texts))] + texts[r.IntN(len(texts))] }
		v.Name, v.Note, v.Names = name(pick()), pick(), [2]string{pick(), pick()}

		var back exactPlain
		same := func(a, b exactPlain) bool {
			return a == b && math.Float64bits(a.F) == math.Float64bits(b.F) &&
				math.Float32bits(a.G) == math.Float32bits(b.G)
		}
		b, err := plain.Append(nil, unsafe.Pointer(&v.exactPlain))
		if err != nil {
			t.Fatal(err)
		}
		if err := plain.Decode(b, unsafe.Pointer(&back)); err != nil || !same(back, v.exactPlain) {
			t.Fatalf("%s: %v", b, err)
		}
		b, err = text.Append(b[:0], unsafe.Pointer(&v))
		if err != nil {
			t.Fatal(err)
		}
		var whole exactText
		if err := text.Decode(b, unsafe.Pointer(&whole)); err != nil {
			t.Fatal(err)
		}
		if kept := whole == v && same(whole.exactPlain, v.exactPlain); kept == Replaced(b) {
			t.Fatalf("%q is decoded to the same: %v, replaced: %v", b, kept, Replaced(b))
		}
	}
}

func TestReplaced(t *testing.T) {
	err := quick.Check(func(parts []uint8) bool {
		var s strings.Builder
		valid := true
		for _, p := range parts {
			s.WriteString([]string{`\`, `\ufffd`, "\ufffd", "u", "fffd", `"`}[p%6])
			if p > 250 {
				s.WriteByte(0xff)
				valid = false
			}
		}
		return Replaced(appendString(nil, s.String())) == !valid
	}, &quick.Config{MaxCount: 5000})
	if err != nil {
		t.Error(err)
	}
}

// Two keys that are not UTF-8 could become one, so encoding fails.
func TestKeysAreText(t *testing.T) {
	v := struct{ M map[string]int }{map[string]int{"a": 1, "\xff": 2}}
	if b, err := encode(t, &v); err == nil || err.Error() != "json: M.\ufffd: text is not UTF-8" {
		t.Errorf("%s, %v", b, err)
	}
	v.M = map[string]int{"\ufffd": 2}
	if b, err := encode(t, &v); err != nil || string(b) != `{"M":{"`+"\ufffd"+`":2}}` {
		t.Errorf("%s, %v", b, err)
	}
}

// A time in a zone that RFC 3339 cannot express keeps its instant.
func TestTimesKeepTheirInstant(t *testing.T) {
	for _, offset := range []int{0, 3600, -3600, 60, 3601, -3599, 1, 59, 14*3600 + 30, 24*3600 - 1} {
		in := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", offset))
		b, err := encode(t, &in)
		if err != nil {
			t.Fatal(err)
		}
		var out time.Time
		if err := decode(t, string(b), &out); err != nil || !out.Equal(in) {
			t.Errorf("offset %d: %v became %s, %v, %v", offset, in, b, out, err)
		}
	}
}

package jsoncheck

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// jsonTexts are valid and invalid in every way of the grammar.
var jsonTexts = []string{
	``, ` `, `null`, ` null `, `nul`, `nullx`, `true`, `tru e`, `false`, `0`, `-0`, `-`, `01`, `1.`, `1.5`, `.5`, `1e`,
	`1e+`, `1e+5`, `1E-05`, `1e5.2`, `--1`, `+1`, `0x1`, `1 2`,
	`"`, `""`, `"a"`, `"\"`, `"\\"`, `"\u00e9"`, `"\u00g9"`, `"\u00e"`, `"\x"`, `"\n\t\r\b\f\/"`, "\"\n\"", "\"\x00\"",
	"\"\x7f\"", "\"\xff\"", `"a"b`,
	`[]`, `[ ]`, `[`, `]`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `[1,2]`, `[[],[[]]]`, `[}`, `[1}`,
	`{}`, `{ }`, `{`, `}`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"a" : 1 , "b":[]}`, `{a:1}`,
	`{"a":1]`, `{"a":1 "b":2}`, `{"a":{"b":{}}}`, `{1:2}`,
	"\ufeff1", "1\x00", "\v1", "\u00a01",
}

func TestValidAgreesWithTheLibrary(t *testing.T) {
	texts := append([]string(nil), jsonTexts...)
	for _, depth := range []int{63, 64, 65, 66, maxNesting - 1, maxNesting, maxNesting + 1} {
		for _, pair := range []string{"[]", "{}"} {
			open := strings.Repeat(map[string]string{"[]": "[", "{}": `{"a":`}[pair], depth-1)
			texts = append(texts, open+pair+strings.Repeat(pair[1:], depth-1), open+"1"+strings.Repeat(pair[1:],
				depth-1))
		}
	}
	long := `"` + strings.Repeat("x", 3*yield.Step) + `"`
	texts = append(texts, long, long[1:], long+",", "["+long+","+long+"]", strings.Repeat(" ", 2*yield.Step)+"1",
		strings.Repeat("1", 2*yield.Step), "["+strings.Repeat("[],", yield.Step)+"1]")
	for _, text := range texts {
		if got, want := Valid([]byte(text)), json.Valid([]byte(text)); got != want {
			t.Errorf("%.60q (%d bytes): %v, want %v", text, len(text), got, want)
		}
	}
}

func FuzzValid(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := Valid(b), json.Valid(b); got != want {
			t.Errorf("%q: %v, want %v", b, got, want)
		}
	})
}

// BenchmarkValid compares Valid with encoding/json's.
func BenchmarkValid(b *testing.B) {
	for name, text := range map[string][]byte{
		"small":  []byte(`{"amount":5,"from":"alice"}`),
		"string": append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 4<<20)...), '"'),
		"other":  append(append([]byte{'"'}, bytes.Repeat([]byte("é"), 2<<20)...), '"'),
		"object": append(append([]byte{'['}, bytes.Repeat([]byte(`{"amount":5,"from":"alice"},`), 1<<16)...), `1]`...),
		"names":  []byte(object(maxNames, -1, "1")),
	} {
		strict := func(b []byte) bool { return Check(b) == nil }
		for kind, valid := range map[string]func([]byte) bool{"own": Valid, "strict": strict, "library": json.Valid} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					if !valid(text) {
						b.Fatal("not valid")
					}
				}
			})
		}
	}
}

// strictTexts are valid JSON, some of which [Check] refuses.
var strictTexts = []string{
	`"\ud83d\ude00"`, `"\ud83d"`, `"\ude00"`, `"\ud83d\ud83d"`, `"\ude00\ud83d"`, `"\ud83dx"`, `"\ud83d\n"`,
	`"\ud83d\u0041"`, `"\uD83D\uDE00"`, `"\uffff\ufffd\u0000"`,
	"\"é\"", "\"\xc3\"", "\"\xa9\"", "\"a\xc3\\n\xa9\"", "\"\xed\xa0\x80\"", "\"\xf0\x9f\x98\x80\"",
	"\"\xf4\x90\x80\x80\"", "\"\xc0\x80\"", "{\"\xff\":1}", "[\"\xff\"]",
	`{"a":1,"a":2}`, `{"a":1,"A":2}`, `{"a":1,"\u0061":2}`, `{"\u0061\n":1,"a\u000a":2}`, `{"\ud83d\ude00":1,"😀":2}`,
	`{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}`, `{"a":{"b":1},"c":1,"a":2}`,
	`{"a":1,"a\u0000":2,"\/":1,"/":2}`, `{"":1,"":2}`, `{"":1," ":2}`,
}

// reference is a slow Check on top of encoding/json.
func reference(b []byte) bool {
	if !json.Valid(b) || !utf8.Valid(b) {
		return false
	}
	for rest := b; ; { // the halves of surrogate pairs, outside of strings there is no backslash
		at := bytes.IndexByte(rest, '\\')
		if at < 0 {
			break
		}
		if rest = rest[at+1:]; rest[0] != 'u' {
			rest = rest[1:]
			continue
		}
		one, _ := strconv.ParseUint(string(rest[1:5]), 16, 16)
		rest = rest[5:]
		if one < 0xd800 || one > 0xdfff {
			continue
		}
		if one >= 0xdc00 || len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
			return false
		}
		if two, err := strconv.ParseUint(string(rest[2:6]), 16, 16); err != nil || two < 0xdc00 || two > 0xdfff {
			return false
		}
		rest = rest[6:]
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	type level struct {
		names map[string]bool // nil: an array
		value bool            // after a name
	}
	var open []level
	for {
		token, err := d.Token()
		if err != nil {
			return true
		}
		if len(open) > 0 && token != json.Delim('}') && token != json.Delim(']') {
			if in := &open[len(open)-1]; in.names != nil {
				if in.value = !in.value; in.value {
					if in.names[token.(string)] {
						return false
					}
					in.names[token.(string)] = true
				}
			}
		}
		switch token {
		case json.Delim('{'):
			open = append(open, level{names: map[string]bool{}})
		case json.Delim('['):
			open = append(open, level{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
	}
}

// object returns an object with the given number of members; the last repeats the n-th name.
func object(members, again int, value string) string {
	var b strings.Builder
	for i := range members {
		n := i
		if i == members-1 && again >= 0 {
			n = again
		}
		fmt.Fprintf(&b, `,"n%d":%s`, n, value)
	}
	return "{" + b.String()[1:] + "}"
}

func TestCheckAgreesWithTheLibrary(t *testing.T) {
	texts := append(append([]string(nil), jsonTexts...), strictTexts...)
	for _, n := range []int{2, fewNames - 1, fewNames, fewNames + 1, fewNames + 2, 100, 1000, maxNames - 20} {
		for _, again := range []int{-1, 0, n / 2, n - 2} {
			texts = append(texts, object(n, again, "1"))
		}
	}
	inner := object(40, -1, "1")
	texts = append(texts, object(50, -1, object(30, -1, inner)), object(50, 3, object(5, -1, inner)),
		object(50, -1, object(30, -1, object(40, 7, "1"))), object(3, -1, object(1000, -1, "[]")))
	for shift := range 8 { // a character across the offsets at which others run
		text := `"` + strings.Repeat("x", yield.Step-shift) + "😀" + strings.Repeat("é", yield.Step) + `"`
		texts = append(texts, text, strings.Replace(text, "😀", "\xf0\x9f\x98", 1), text[:len(text)-2]+`"`)
	}
	for _, text := range texts {
		if err, want := Check([]byte(text)), reference([]byte(text)); (err == nil) != want {
			t.Errorf("%.60q (%d bytes): %v, want %v", text, len(text), err, want)
		}
	}
}

// An error tells the author of the text what is wrong, and where.
func TestWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1,"\u0061":2}`: `there are two members "\u0061", the second one at byte 7`,
		"[\"é\xff\"]":        "it is not UTF-8: the byte 0xff at 4",
		`["\ud800"]`: `the escape \ud800 at byte 2 is half of a surrogate pair and stands for ` +
			`no character`,
		`{"a":}`:                          `it is not JSON: invalid character '}' at byte 5`,
		`{"a":1} x`:                       `there is text after the JSON, at byte 8`,
		`{"a":1`:                          "the JSON ends too early",
		"\xef\xbb\xbf{}":                  `it is not JSON: invalid character '\ufeff' at byte 0`,
		``:                                "it is empty, where JSON is expected",
		strings.Repeat("[", maxNesting+1): "arrays and objects are nested deeper than 10000, at byte 10000",
	} {
		if err := Check([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := Check([]byte(object(maxNames+1, -1, "1"))); err == nil || err.(*Error).Fault != TooMany {
		t.Error(err)
	}
	if err := Check([]byte("[" + strings.Repeat(object(maxNames, -1, "1")+",", 3) + "1]")); err != nil {
		t.Error(err)
	}
}

// Most texts are small, and checked without an allocation.
func TestCheckAllocatesNothing(t *testing.T) {
	n := new(names) // the pool's may be collected
	for _, text := range []string{`{"amount":5,"from":"alice"}`, object(fewNames, -1, "1"),
		"[" + object(3, -1, object(4, -1, "1")) + "]"} {
		b := []byte(text)
		if allocs := testing.AllocsPerRun(100, func() {
			if err := n.check(b); err != nil {
				t.Fatal(err)
			}
		}); allocs > 0 {
			t.Errorf("%s: %v allocations", text, allocs)
		}
	}
	if err := n.check([]byte(object(1000, -1, "1"))); err != nil || n.slots != nil {
		t.Errorf("a large text leaves %d slots, %v", len(n.slots), err)
	}
}

func FuzzCheck(f *testing.F) {
	for _, text := range append(append([]string(nil), jsonTexts...), strictTexts...) {
		f.Add([]byte(text))
	}
	f.Add([]byte(object(fewNames+5, 3, object(fewNames+2, -1, "1"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err, want := Check(b), reference(b); (err == nil) != want {
			t.Errorf("%q: %v, want %v", b, err, want)
		}
	})
}

type part struct {
	Number int             `json:"number"`
	Any    json.RawMessage `json:"any"`
	Hidden string          `json:"-"`
}

type whole struct {
	part
	Name  string          `json:"name"`
	Parts []part          `json:"parts"`
	By    map[string]part `json:"by"`
	At    *part           `json:"at"`
	Bytes []byte          `json:"bytes"`
}

// A member must have its exact name, at any depth; untyped data may have any members.
func TestDecodeIsExact(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"a","number":1,"parts":[{"number":2}],"by":{"Number":{"number":3}},"at":{"any":{"x":1,"X":2}},` +
			`"bytes":"AA=="}`: "",
		` {"n\u0061me":"a"} `: "", `{"at":null}`: "", `{}`: "", ` null`: "it is null; it should be a JSON object",
		`{"Name":"a"}`:                 `there is no member "Name"; it is written "name"`,
		`{"nam\u0065s":"a"}`:           `there is no member "nam\u0065s"`,
		`{"parts":[{},{"NUMBER":2}]}`:  `there is no member "NUMBER"; it is written "number"`,
		`{"by":{"x":{"x":2}}}`:         `there is no member "x"`,
		`{"at":{"Hidden":"x"}}`:        `there is no member "Hidden"`,
		`{"part":{}}`:                  `there is no member "part"`,
		`{"at":{"any":{"x":1,"x":2}}}`: `there are two members "x", the second one at byte 20`,
		`{"name":1}`:                   `name is a number; it takes a string`,
		`{"at":{"number":1.5}}`:        `at.number is 1.5; it takes a whole number`,
		`[]`:                           `it is an array; it should be a JSON object`,
		`{"name":"a"}{}`:               `there is text after the JSON, at byte 12`,
	} {
		var v whole
		if err := Decode([]byte(text), &v); err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// Unknown members are ignored, but names that differ only in case are refused.
func TestDecodeKnown(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"a","later":1,"parts":[{"later":{"x":1}}]}`: "",
		`{"name":"a","later":{"x":1,"x":1}}`:                 `there are two members "x", the second one at byte 27`,
		`{"parts":[{"Number":1}]}`:                           `there is no member "Number"; it is written "number"`,
	} {
		var v whole
		if err := DecodeKnown([]byte(text), &v); err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// FuzzDecode compares Decode with encoding/json on texts that both accept.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{`{"name":"a","parts":[{"number":1,"any":[1,{"a":"}"}]}],"at":{}}`, `{"Name":1}`,
		`{"by":{"a":{}}}`, ` null`, `[{}]`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, want whole
		if Decode(b, &got) != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&want); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q is %+v, want %+v", b, got, want)
		}
	})
}

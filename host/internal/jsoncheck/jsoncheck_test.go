package jsoncheck

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// jsonTexts are right and wrong in each way that the grammar knows.
var jsonTexts = []string{
	``, ` `, `null`, ` null `, `nul`, `nullx`, `true`, `tru e`, `false`, `0`, `-0`, `-`, `01`, `1.`, `1.5`, `.5`, `1e`, `1e+`, `1e+5`, `1E-05`, `1e5.2`, `--1`, `+1`, `0x1`, `1 2`,
	`"`, `""`, `"a"`, `"\"`, `"\\"`, `"\u00e9"`, `"\u00g9"`, `"\u00e"`, `"\x"`, `"\n\t\r\b\f\/"`, "\"\n\"", "\"\x00\"", "\"\x7f\"", "\"\xff\"", `"a"b`,
	`[]`, `[ ]`, `[`, `]`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `[1,2]`, `[[],[[]]]`, `[}`, `[1}`,
	`{}`, `{ }`, `{`, `}`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"a" : 1 , "b":[]}`, `{a:1}`, `{"a":1]`, `{"a":1 "b":2}`, `{"a":{"b":{}}}`, `{1:2}`,
	"\ufeff1", "1\x00", "\v1", "\u00a01",
}

func TestValidAgreesWithTheLibrary(t *testing.T) {
	texts := append([]string(nil), jsonTexts...)
	for _, depth := range []int{63, 64, 65, 66, maxNesting - 1, maxNesting, maxNesting + 1} {
		for _, pair := range []string{"[]", "{}"} {
			open := strings.Repeat(map[string]string{"[]": "[", "{}": `{"a":`}[pair], depth-1)
			texts = append(texts, open+pair+strings.Repeat(pair[1:], depth-1), open+"1"+strings.Repeat(pair[1:], depth-1))
		}
	}
	long := `"` + strings.Repeat("x", 3*yield.Step) + `"`
	texts = append(texts, long, long[1:], long+",", "["+long+","+long+"]", strings.Repeat(" ", 2*yield.Step)+"1", strings.Repeat("1", 2*yield.Step), "["+strings.Repeat("[],", yield.Step)+"1]")
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

// BenchmarkValid compares it with the library's.
func BenchmarkValid(b *testing.B) {
	for name, text := range map[string][]byte{
		"small":  []byte(`{"amount":5,"from":"alice"}`),
		"string": append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 4<<20)...), '"'),
		"object": append(append([]byte{'['}, bytes.Repeat([]byte(`{"amount":5,"from":"alice"},`), 1<<16)...), `1]`...),
	} {
		for kind, valid := range map[string]func([]byte) bool{"own": Valid, "library": json.Valid} {
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

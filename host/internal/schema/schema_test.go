package schema

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// made compiles a schema that must be valid.
func made(t testing.TB, text string) *Schema {
	t.Helper()
	s, err := New("command deposit", text)
	if err != nil || s == nil {
		t.Fatalf("%.200s: %v, %v", text, s, err)
	}
	return s
}

// check is Check without the time.
func (s *Schema) check(data []byte, rest func() error) error {
	_, err := s.Check(data, rest)
	return err
}

const deposit = `{"type":"object","properties":{"amount":{"type":"integer","minimum":1},"from":{"type":"string",` +
	`"maxLength":20},` +
	`"tags":{"type":"array","items":{"type":"string"},"uniqueItems":true},"kind":{"enum":["cash","card"]},` +
	`"note":{"anyOf":[{"type":"string"},{"type":"null"}]},` +
	`"to":{"type":"object","properties":{"a/b~c":{"type":"number"}},"required":["a/b~c"],` +
	`"additionalProperties":false},` +
	`"step":{"multipleOf":0.05},"code":{"type":"string","pattern":"^[a-z]{2}$"},"x":false},"required":["amount"],` +
	`"additionalProperties":false}`

// An error has a pointer to the violation, and says what was wrong and what was expected.
func TestWhatDoesNotFitIsNamed(t *testing.T) {
	s := made(t, deposit)
	for _, c := range []struct{ data, pointer, words string }{
		{`{}`, "/amount", `the data lacks the member "amount" (an integer), which the command deposit requires`},
		{`null`, "", `the data is null; it has to be an object`},
		{`[1]`, "", `the data is an array; it has to be an object`},
		{``, "/amount",
			`there is no data, and the data lacks the member "amount" (an integer), which the command ` +
				`deposit requires`},
		{`{"Amount":3}`, "/Amount",
			`the data has the member "Amount", which the command deposit does not know; did you mean "amount"?`},
		{`{"amount":3,"By":4}`, "/By",
			`the data has the member "By", which the command deposit does not know; it knows "amount", "code", ` +
				`"from", "kind", "note", "step", "tags", "to", "x"`},
		{`{"amount":"3"}`, "/amount", `the data at /amount is a string; it has to be an integer`},
		{`{"amount":1.5}`, "/amount", `the data at /amount is the number 1.5; it has to be an integer`},
		{`{"amount":0}`, "/amount", `the data at /amount is 0; it has to be 1 or more`},
		{`{"amount":-1e999999999}`, "/amount", `the data at /amount is -1e999999999; it has to be 1 or more`},
		{`{"amount":1,"from":"` + strings.Repeat("é", 21) + `"}`, "/from",
			`the data at /from has more than 20 characters`},
		{`{"amount":1,"tags":["a","b","a"]}`, "/tags/2",
			`the data at /tags/2 is there already; each element has to be another`},
		{`{"amount":1,"tags":["a",7]}`, "/tags/1", `the data at /tags/1 is the number 7; it has to be a string`},
		{`{"amount":1,"kind":"gold"}`, "/kind", `the data at /kind has to be one of "cash", "card"`},
		{`{"amount":1,"note":1}`, "/note", `the data at /note is a number; it has to be null or a string`},
		{`{"amount":1,"to":{}}`, "/to/a~1b~0c",
			`the data at /to lacks the member "a/b~c" (a number), which the command deposit requires`},
		{`{"amount":1,"to":{"a\/b~c":true}}`, "/to/a~1b~0c",
			`the data at /to/a~1b~0c is a boolean; it has to be a number`},
		{`{"amount":1,"step":0.12}`, "/step", `the data at /step is 0.12; it has to be a multiple of 0.05`},
		{`{"amount":1,"code":"abc"}`, "/code", `the data at /code does not match the pattern "^[a-z]{2}$"`},
		{`{"amount":1,"x":1}`, "/x", `the data at /x has to be left out: the command deposit has no use for it`},
		{`{"amount":1,"amount":2}`, "/amount", `the data at /amount is there twice`},
		{`{"amount":1`, "", `the data is not JSON: the JSON ends too early`},
		{`{"amount":1} x`, "", `the data is not JSON: there is text after the JSON, at byte 13`},
	} {
		err := s.check([]byte(c.data), nil)
		var e *service.Error
		if !errors.As(err, &e) || e.Kind != service.KindInvalid || e.Pointer == nil {
			t.Errorf("%s: %v", c.data, err)
			continue
		}
		if *e.Pointer != c.pointer || e.Message != c.words {
			t.Errorf("%s:\n got %q %s\nwant %q %s", c.data, *e.Pointer, e.Message, c.pointer, c.words)
		}
	}
	for _, data := range []string{
		`{"amount":1}`, `{"amount":1.0}`, `{"amount":1e3,"from":"x"}`, ` { "amount" : 7 , "tags" : [ "a" , "b" ] } `,
		`{"\u0061mount":5}`,
		`{"amount":1e999999999}`, `{"amount":1,"note":null,"kind":"ca\u0073h","step":0.15,"to":{"a/b~c":-0.5e-7}}`,
	} {
		if err := s.check([]byte(data), nil); err != nil {
			t.Errorf("%s: %v", data, err)
		}
	}
}

// If no alternative fits, the one that got farthest into the data is reported.
func TestTheFarthestAlternativeIsReported(t *testing.T) {
	s := made(t,
		`{"oneOf":[{"type":"null"},{"properties":{"kind":{"const":"a"},"n":{"type":"integer"}},"required":["kind"]},`+
			`{"properties":{"kind":{"const":"b"},"m":{"properties":{"x":{"type":"string"}}}},`+
			`"required":["kind","m"]}]}`)
	err := s.check([]byte(`{"kind":"b","m":{"x":1}}`), nil)
	if e, ok := err.(*service.Error); !ok || *e.Pointer != "/m/x" {
		t.Errorf("%v", err)
	}
	if err := made(t, `{"oneOf":[{"type":"integer"},{"minimum":2}]}`).check([]byte("3"), nil); err == nil ||
		!strings.Contains(err.Error(), "more than one of the alternatives") {
		t.Errorf("%v", err)
	}
}

// Empty data passes where {} or null does.
func TestNoData(t *testing.T) {
	for _, text := range []string{`{"type":"object","additionalProperties":false}`, `{"type":"null"}`,
		`{"type":["object","null"],"required":["a"]}`} {
		if err := made(t, text).check(nil, nil); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := made(t, `false`).check(nil, nil); err == nil {
		t.Error("false takes no data")
	}
}

// Schemas that accept anything cost nothing.
func TestWhatTakesAnythingIsNothing(t *testing.T) {
	for _, text := range []string{"", "true", "{}", ` { } `,
		`{"title":"x","description":"y","examples":[1],"x-order":3,"$defs":{"a":{"type":"string"}}}`,
		`{"allOf":[true,{}]}`} {
		if s, err := New("command x", text); s != nil || err != nil {
			t.Errorf("%s: %v, %v", text, s, err)
		}
	}
}

// A schema that exceeds a bound is refused, with the bound and the place.
func TestBoundsOfSchemas(t *testing.T) {
	nested := func(n int, open, inner, shut string) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(shut, n)
	}
	doubling := `{"$ref":"#/$defs/a0","$defs":{`
	for i := range 20 {
		next := string(rune('a'+i)) + "0"
		after := string(rune('b'+i)) + "0"
		doubling += `"` + next + `":{"allOf":[{"$ref":"#/$defs/` + after + `"},{"$ref":"#/$defs/` + after + `"}]},`
	}
	doubling += `"u0":{"type":"string"}}}`
	for _, c := range []struct{ text, words string }{
		{`{"description":"` + strings.Repeat("x", MaxBytes) + `"}`, "it has 65554 bytes; it may have 65536"},
		{`{"enum":[` + strings.Repeat("1,", MaxValues) + `1]}`, "more than 10000 values"},
		{nested(40, `{"properties":{"a":`, `{}`, `}}`), "nested deeper than 64 levels, at #/properties/a"},
		{`{"type":"strnig"}`, "it is not a JSON Schema: value must be one of"},
		{`{"type":"strnig"}`, "at #/type"},
		{`{"properties":{"a":{"minLength":-1}}}`, "at #/properties/a/minLength"},
		{`{"required":"a"}`, "at #/required"},
		{`{"$ref":"http://127.0.0.1/x.json"}`, `it refers to "http://127.0.0.1/x.json", which is outside of it`},
		{`{"$ref":"file:///etc/passwd"}`, `it refers to "file:///etc/passwd", which is outside of it`},
		{`{"$ref":"other.json#/a"}`, `it refers to "other.json", which is outside of it`},
		{`{"$id":"https://example.com/a","properties":{"x":{"$ref":"b"}}}`,
			`it refers to "https://example.com/b", which is outside of it`},
		{`{"$ref":"#/$defs/none"}`, "not found"},
		{`{"$schema":"https://example.com/mine"}`, "its $schema is"},
		{`{"$ref":"#"}`, "refers to itself without going into the data"},
		{
			`{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"type":"string"},{"$ref":"#/$defs/b"}]},` +
				`"b":{"not":{"$ref":"#/$defs/a"}}}}`, "refers to itself without going into the data"},
		{`{"$ref":"https://json-schema.org/draft/2020-12/schema"}`, "refers to the schema of schemas"},
		{`{"$dynamicRef":"#a"}`, "$dynamicRef"},
		{doubling, "looks at the same value more than 256 times"},
		{`{"anyOf":[` + strings.Repeat(`{"minLength":2},`, 300) + `{"type":"string"}]}`, "looks at the same value " +
			"more than 256 times"},
		{`{"properties":{` + strings.Repeat(`"x":{"type":"string"},`, 1) + manyProperties(MaxNodes) + `}}`,
			"made of more than 2000 schemas"},
		{`{"pattern":"(?=a)b"}`, "regular expression"},
		{`{"pattern":"(?:abcdefghi){200}"}`, "more than 1000 instructions"},
		{`{"pattern":"(((a{100}){100}){100}){100}"}`, "pattern"},
		{`{"patternProperties":{"(":true}}`, "regular expression"},
		{`{"allOf":[` + strings.TrimSuffix(strings.Repeat(`{"pattern":"^[a-z]{490}$"},`, 30), ",") + `]}`,
			"instructions together"},
		{`{"minimum":1e1000000}`, "a number has more than 100 characters or an exponent beyond 400, at #/minimum"},
		{`{"const":{"a":[` + strings.Repeat("9", 200) + `]}}`, "at #/const/a/0"},
		{`{"multipleOf":1e-999999999}`, "at #/multipleOf"},
		{`{"multipleOf":1.2345678901234567891}`, "multipleOf has to have 1 to 18 digits"},
		{`{"maxLength":1e20}`, "maxLength is 1e20; it may be 1000000000000000"},
	} {
		if s, err := New("command x", c.text); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%.100s: %v, %v; want %q", c.text, s, err, c.words)
		}
	}
}

func manyProperties(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"p` + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) +
			string(rune('a'+i/676)) + `":{"type":"string"}`)
	}
	return b.String()
}

// The refusal of a manifest names every command or query with a wrong schema.
func TestManifestsAreRefusedByName(t *testing.T) {
	m := &abi.Manifest{Commands: []abi.CommandType{{Name: "a"}, {Name: "add", Input: `{"$ref":"http://example.com/"}`}},
		Queries: []abi.QueryType{{Name: "q", Input: `{"type":1}`}}}
	rests := 0
	_, reasons, err := Compile(m, func() error { rests++; return nil })
	if err != nil || rests != 2 {
		t.Errorf("%v, after %d rests", err, rests)
	}
	ended := errors.New("ended")
	if _, reasons, err := Compile(m, func() error { return ended }); err != ended || len(reasons) != 1 {
		t.Errorf("%v, %v", reasons, err)
	}
	if len(reasons) != 2 || !strings.HasPrefix(reasons[0],
		`commands[1].input, of the command "add", cannot be used: it refers to`) ||
		!strings.HasPrefix(reasons[1], `queries[0].input, of the query "q", `) {
		t.Errorf("%q", reasons)
	}
	large := &abi.Manifest{}
	for range 100 {
		large.Commands = append(large.Commands, abi.CommandType{Name: "c", Input: `{"properties":{` +
			manyProperties(500) + `}}`})
	}
	_, reasons, err = Compile(large, func() error { return nil })
	if err != nil || len(reasons) != 1 || !strings.Contains(reasons[0], "take more than 16777216 bytes in memory") {
		t.Errorf("%q, %v", reasons, err)
	}
	m.Encoding = "application/json; charset=utf-8"
	if _, reasons, err := Compile(m, func() error { return nil }); err != nil || len(reasons) != 2 {
		t.Errorf("%q, %v", reasons, err)
	}
	m.Encoding = "application/octet-stream"
	if s, reasons, err := Compile(m, nil); s != nil || reasons != nil || err != nil || s.Command(1) != nil ||
		s.Query(0) != nil {
		t.Error("schemas of what is not JSON are looked at")
	}
}

// The time of a check is linear in the size of the data, also if schema and data are made to be slow.
func TestDataThatTakesLongToCheck(t *testing.T) {
	tree := `{"$defs":{"t":{"anyOf":[{"properties":{"l":{"$ref":"#/$defs/t"},"k":{"const":1}},"required":["k"]},` +
		`{"properties":{"l":{"$ref":"#/$defs/t"},"k":{"const":2}},"required":["k"]}]}},"$ref":"#/$defs/t"}`
	data := strings.Repeat(`{"l":`, 40) + `{}` + strings.Repeat(`,"k":3}`, 40)
	rests := 0
	err := made(t, tree).check([]byte(data), func() error { rests++; return nil })
	if service.KindOf(err) != service.KindTooLarge || rests < 5 || rests > 20 {
		t.Errorf("%v, after %d rests", err, rests)
	}
	ended := errors.New("ended")
	if err := made(t, tree).check([]byte(data), func() error { return ended }); err != ended {
		t.Errorf("%v", err)
	}
	for _, c := range []struct{ text, data string }{
		{`{"items":{"pattern":"(a*)*(b|c)*d{400}$"}}`, `["` + strings.Repeat("abc", 1<<20) + `"]`},
		{`{"uniqueItems":true}`, `[` + strings.Repeat(`[],`, 1) + series(maxUnique+1) + `]`},
	} {
		if err := made(t, c.text).check([]byte(c.data), nil); service.KindOf(err) != service.KindTooLarge {
			t.Errorf("%s: %v", c.text, err)
		}
	}
	deep := strings.Repeat(`[`, 2000) + strings.Repeat(`]`, 2000)
	for _, text := range []string{`{"items":{"$ref":"#"}}`, `{"const":[]}`} {
		if err := made(t, text).check([]byte(deep), nil); service.KindOf(err) != service.KindInvalid ||
			!strings.Contains(err.Error(), "nested deeper") {
			t.Errorf("%s: %v", text, err)
		}
	}
	chain := `{"$ref":"#/$defs/t","$defs":{"t":{"type":["array","null"],` +
		`"allOf":[{"anyOf":[{"items":{"$ref":"#/$defs/t"}},{"type":"null"}]}]}}}`
	if err := made(t, chain).check([]byte(strings.Repeat(`[`, 450)+strings.Repeat(`]`, 450)), nil); err != nil {
		t.Errorf("450 levels with four schemas for each: %v", err)
	}
	if err := made(t, `{"items":{"type":"integer"}}`).check([]byte("["+strings.Repeat("1", maxNumber+1)+"e0]"),
		nil); service.KindOf(err) != service.KindInvalid {
		t.Errorf("a long number: %v", err)
	}
}

// A check returns how long it ran before its first rest: a few microseconds at most.
func TestACheckSaysHowLongItTook(t *testing.T) {
	s := made(t, `{"items":{"type":"integer"}}`)
	last := time.Duration(0)
	for _, n := range []int{1, 10, 30} {
		took, err := s.Check([]byte("["+series(n)+"]"), nil)
		if err != nil || took <= last || took > firstRest {
			t.Errorf("%d elements: %v after %v, %v", n, took, last, err)
		}
		last = took
	}
	rests := 0
	if took, err := s.Check([]byte("["+series(1000)+"]"), func() error { rests++; return nil }); err != nil ||
		rests != 1 || took < firstRest || took > 2*firstRest {
		t.Errorf("%v, %d rests, %v", took, rests, err)
	}
	if took, _ := made(t, `{"type":"null"}`).Check(nil, nil); took < 2*lookSteps { // as {} and as null
		t.Errorf("no data: %v", took)
	}
}

func series(n int) string {
	b := make([]byte, 0, 8*n)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, []byte(strconv.Itoa(i))...)
	}
	return string(b)
}

// Large data is checked in steps between which others run.
func TestLargeDataIsCheckedInSteps(t *testing.T) {
	s := made(t,
		`{"type":"object","properties":{"lines":{"type":"array","items":{"type":"object",`+
			`"properties":{"sku":{"type":"string"},"n":{"type":"integer"}},"required":["sku","n"],`+
			`"additionalProperties":false}},"blob":{"type":"string"}}}`)
	for _, data := range []string{
		`{"lines":[` + strings.TrimSuffix(strings.Repeat(`{"sku":"abc","n":12},`, 8<<20/21), ",") + `]}`,
		`{"blob":"` + strings.Repeat("x", 8<<20) + `"}`,
		`{"other":[` + strings.TrimSuffix(strings.Repeat(`[],`, 8<<20/3), ",") + `]}`,
	} {
		rests := 0
		if err := s.check([]byte(data), func() error { rests++; return nil }); err != nil || rests < 60 {
			t.Errorf("%.20s: %v, %d rests", data, err, rests)
		}
	}
}

// All instructions of an expression can be active at each character. Others still get to run, even if
// the string is short.
func TestOthersRunWhileAnExpressionWorks(t *testing.T) {
	const size, states = 250, 2 * 320
	s := made(t, `{"pattern":"(?:a?){320}b"}`)
	rests := 0
	err := s.check([]byte(`"`+strings.Repeat("a", size)+`"`), func() error { rests++; return nil })
	// Each state may take 10 ns for a character; others must not wait for a millisecond.
	if want := size * states * 10 / 1_000_000; service.KindOf(err) != service.KindInvalid || rests < want {
		t.Errorf("%d rests, want at least %d: %v", rests, want, err)
	}
	ended := errors.New("enough")
	if err := s.check([]byte(`"`+strings.Repeat("a", size)+`"`), func() error { return ended }); err != ended {
		t.Errorf("it goes on after %v: %v", ended, err)
	}
}

func TestAPointerIsBounded(t *testing.T) {
	s := made(t, `{"additionalProperties":{"additionalProperties":{"type":"string"}}}`)
	err := s.check([]byte(`{"a":{"`+strings.Repeat("n", 2*maxPointer)+`":1}}`), nil)
	if e, ok := err.(*service.Error); !ok || *e.Pointer != "/a" || len(e.Message) > 300 {
		t.Errorf("%v", err)
	}
}

// Nothing is allocated for data that fits. The check is not from the pool, which forgets some under the
// race detector.
func TestDataThatFitsAllocatesNothing(t *testing.T) {
	s, c := made(t, deposit), newCheck()
	for _, text := range []string{`{"amount":5,"from":"alice"}`,
		`{"amount":5,"note":null,"kind":"cash","to":{"a\/b~c":1.5}}`} {
		data := []byte(text)
		if n := testing.AllocsPerRun(100, func() {
			if err := c.run(s, data, nil); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", data, n)
		}
	}
}

// BenchmarkCheck is the check of the bank's commands.
func BenchmarkCheck(b *testing.B) {
	s := made(b,
		`{"type":"object","properties":{"amount":{"type":"integer"},"currency":{"type":"string"}},`+
			`"required":["amount"],"additionalProperties":false}`)
	for name, data := range map[string]string{"deposit": `{"amount":100}`, "two": `{"amount":100,"currency":"EUR"}`,
		"refused": `{"amount":100,"Currency":"EUR"}`} {
		b.Run(name, func(b *testing.B) {
			text := []byte(data)
			b.ReportAllocs()
			for b.Loop() {
				_ = s.check(text, nil)
			}
		})
	}
	b.Run("full", func(b *testing.B) {
		s := made(b, deposit)
		text := []byte(`{"amount":5,"from":"alice","note":null,"kind":"card","tags":["a","b"],"code":"de"}`)
		b.ReportAllocs()
		for b.Loop() {
			if err := s.check(text, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("compile", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			made(b, deposit)
		}
	})
}

package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	_ "github.com/google/jsonschema-go/jsonschema" // for the test suite that it contains
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// group is a group of tests of the JSON Schema Test Suite.
type group struct {
	Group  string          `json:"description"`
	Schema json.RawMessage `json:"schema"`
	Tests  []struct {
		About string          `json:"description"`
		Data  json.RawMessage `json:"data"`
		Valid bool            `json:"valid"`
	} `json:"tests"`
}

// suiteDrafts are the drafts of the suite in Google's module, and the $schema that their schemas get.
var suiteDrafts = map[string]string{
	"draft2020-12": "https://json-schema.org/draft/2020-12/schema",
	"draft7":       "http://json-schema.org/draft-07/schema#",
}

// suite reads the suite in the module cache.
func suite(t testing.TB) (groups []group) {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/jsonschema-go").Output()
	if err != nil {
		t.Fatalf("the module of Google's JSON Schema, which carries the suite, cannot be found: %v", err)
	}
	for _, draft := range slices.Sorted(maps.Keys(suiteDrafts)) {
		files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "jsonschema", "testdata", draft,
			"*.json"))
		if len(files) == 0 {
			t.Fatalf("the module no longer carries the suite of %s", draft)
		}
		for _, file := range files {
			groups = append(groups, groupsOf(t, file, suiteDrafts[draft])...)
		}
	}
	return groups
}

// groupsOf reads a file of the suite. A schema without $schema gets the given one.
func groupsOf(t testing.TB, file, draft string) (groups []group) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &groups); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for i := range groups {
		g := &groups[i]
		g.Group = filepath.Base(filepath.Dir(file)) + ", " + g.Group
		if rest, ok := bytes.CutPrefix(bytes.TrimSpace(g.Schema), []byte("{")); ok &&
			!bytes.Contains(g.Schema, []byte(`"$schema"`)) {
			own := `{"$schema":"` + draft + `"`
			if bytes.TrimSpace(rest)[0] != '}' {
				own += ","
			}
			g.Schema = append([]byte(own), rest...)
		}
	}
	return groups
}

// The checks agree with the test suite of JSON Schema. Schemas that refer to other documents, or to
// the meta-schemas, are refused instead.
func TestTheSuiteOfJSONSchema(t *testing.T) {
	refused, tests := map[string]int{}, 0
	for _, g := range suite(t) {
		s, err := New("command x", string(g.Schema))
		if err != nil {
			why := ""
			for _, w := range []string{"outside of it", "$dynamicRef", "schema of schemas"} {
				if strings.Contains(err.Error(), w) {
					why = w
				}
			}
			if why == "" {
				t.Errorf("%s is refused: %v", g.Group, err)
			}
			refused[why]++
			continue
		}
		for _, x := range g.Tests {
			tests++
			var err error
			if s != nil {
				err = s.check(x.Data, nil)
			}
			if (err == nil) != x.Valid {
				t.Errorf("%s, %s: %v; it is valid: %v", g.Group, x.About, err, x.Valid)
			}
		}
	}
	want := map[string]int{"outside of it": 31, "$dynamicRef": 16, "schema of schemas": 2}
	if fmt.Sprint(refused) != fmt.Sprint(want) || tests < 1900 {
		t.Errorf("%d tests; refused: %v, want %v", tests, refused, want)
	}
}

// verdict is the result of a check.
type verdict int

const (
	fits verdict = iota
	doesNot
	unsaid // not decided by the schema: malformed data, or too long to check
)

func ours(s *Schema, data []byte) (verdict, error) {
	if s == nil {
		return fits, nil
	}
	err := s.check(data, nil)
	var e *service.Error
	switch {
	case err == nil:
		return fits, nil
	case !errors.As(err, &e) || e.Kind != service.KindInvalid:
		return unsaid, err
	case strings.HasPrefix(e.Message, "the data is not JSON"), strings.HasSuffix(e.Message, " is there twice"),
		strings.HasPrefix(e.Message, "the data is nested deeper"), strings.HasPrefix(e.Message, "a number has more"):
		return unsaid, err
	}
	return doesNot, err
}

// theirs is the verdict of the library on decoded data.
func theirs(text string, data []byte) (v verdict) {
	defer func() {
		if recover() != nil { // the library has limits of its own
			v = unsaid
		}
	}()
	c := jsonschema.NewCompiler()
	c.UseLoader(outside{})
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil || c.AddResource(self, doc) != nil {
		return unsaid
	}
	s, err := c.Compile(self)
	if err != nil {
		return unsaid
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil || !plain(value) {
		return unsaid
	}
	if err := s.Validate(value); err != nil {
		if strings.Contains(err.Error(), "cycle") {
			return unsaid
		}
		return doesNot
	}
	return fits
}

// plain reports whether the library can check a value: the value has no numbers that take the
// library long, or make it panic.
func plain(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			if !plain(x) {
				return false
			}
		}
	case []any:
		for _, x := range v {
			if !plain(x) {
				return false
			}
		}
	case json.Number:
		n, _ := parseNumber([]byte(v), nil)
		return n.exp < 2000 && n.exp > -2000
	}
	return true
}

// twice reports whether data has a repeated member, of which the library sees only the last.
func twice(data []byte) bool {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var walk func() bool
	walk = func() bool {
		token, err := d.Token()
		if err != nil {
			return true
		}
		delim, _ := token.(json.Delim)
		names := map[string]bool{}
		for (delim == '{' || delim == '[') && d.More() {
			if delim == '{' {
				name, err := d.Token()
				if err != nil || names[name.(string)] {
					return true
				}
				names[name.(string)] = true
			}
			if walk() {
				return true
			}
		}
		if delim == '{' || delim == '[' {
			_, err = d.Token()
		}
		return err != nil
	}
	return walk()
}

// FuzzSchema compiles any schema and checks any data. That ends in bounded time, agrees with the
// library where the library can be used, and returns valid JSON Pointers.
func FuzzSchema(f *testing.F) {
	for i, g := range suite(f) {
		if i%3 == 0 && len(g.Tests) > 0 {
			f.Add(string(g.Schema), []byte(g.Tests[i%len(g.Tests)].Data))
		}
	}
	for _, data := range []string{`{}`, `null`, ``, `{"amount":1,"tags":["a","a"]}`, `{"amount":1e999999999}`,
		`{"amount":1,"to":{"a/b~c":1},"step":0.15}`, "[", `{"amount":1,"code":"\ud800"}`} {
		f.Add(deposit, []byte(data))
	}
	f.Add(`{"multipleOf":1e400,"minimum":-1e-400}`, []byte(`1e400`))
	f.Add(`{"pattern":"^(a|b{2,5})*$","minLength":2}`, []byte(`"\u0061bb"`))
	f.Add(`{"$anchor":"a","items":{"$ref":"#a"},"maxItems":2}`, []byte(`[[[],[]],[]]`))
	f.Add(`{"allOf":[{"properties":{"a":true}},{"patternProperties":{"^b":true}}],"unevaluatedProperties":false}`,
		[]byte(`{"a":1,"bc":2,"c":3}`))
	f.Fuzz(func(t *testing.T, text string, data []byte) {
		s, err := New("command x", text)
		if err != nil {
			return
		}
		if s != nil {
			c := newCheck()
			_ = c.run(s, data, nil)
			// The bound is exceeded only by the step that notices it.
			if slack := 64 * (len(data) + freeSteps); c.steps > c.maxSteps+slack {
				t.Errorf("%d steps for %d bytes", c.steps, len(data))
			}
		}
		got, err := ours(s, data)
		var e *service.Error
		if errors.As(err, &e) && e.Pointer != nil && *e.Pointer != "" && ((*e.Pointer)[0] != '/' ||
			len(*e.Pointer) > maxPointer+len(text)) {
			t.Errorf("a pointer %q", *e.Pointer)
		}
		// The library differs for empty data, for formats before 2019-09 (annotations here), for
		// text that is not UTF-8, and for repeated members.
		if got == unsaid || len(data) == 0 || strings.Contains(text, "format") || strings.Contains(text, `\u`) ||
			strings.Contains(string(data), `\u`) ||
			!utf8.Valid(data) || !utf8.ValidString(text) || s != nil && twice(data) {
			return
		}
		if want := theirs(text, data); want != unsaid && want != got && json.Valid(data) {
			t.Errorf("%s\n%s\nis %v (%v), and %v by the library", text, data, got, err, want)
		}
	})
}

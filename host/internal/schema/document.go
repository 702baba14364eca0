package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// self is the address that the library knows a schema by. Nothing can be fetched from it.
const self = "https://schema.invalid/"

// read parses the text of a schema and makes the library compile it. nil stands for true and {}.
func read(text string) (*jsonschema.Schema, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("it has %d bytes; it may have %d", len(text), MaxBytes)
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var doc any
	if err := decoder.Decode(&doc); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("it has something after its end")
	}
	if m, isObject := doc.(map[string]any); doc == true || isObject && len(m) == 0 {
		return nil, nil
	}
	var size sizes
	if err := size.of(doc, "", 1); err != nil {
		return nil, err
	}
	return compiled(doc)
}

// sizes counts the values of a document before any work is done for each of them.
type sizes struct{ values int }

func (s *sizes) of(v any, at string, depth int) error {
	if s.values++; s.values > MaxValues {
		return fmt.Errorf("it has more than %d values", MaxValues)
	}
	if depth > MaxDepth {
		return fmt.Errorf("it is nested deeper than %d levels, at #%s", MaxDepth, cut(at))
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			x := v[name]
			here := joined(at, name)
			if err := word(name, x, here); err != nil {
				return err
			}
			if err := s.of(x, here, depth+1); err != nil {
				return err
			}
		}
	case []any:
		for i, x := range v {
			if err := s.of(x, fmt.Sprintf("%s/%d", at, i), depth+1); err != nil {
				return err
			}
		}
	case json.Number:
		if n, _ := parseNumber([]byte(v), nil); len(v) > MaxDigits || n.exp > MaxExponent || n.exp < -MaxExponent {
			return fmt.Errorf("a number has more than %d characters or an exponent beyond %d, at #%s",
				MaxDigits, MaxExponent, cut(at))
		}
	}
	return nil
}

// counts are the keywords whose value is a count.
var counts = map[string]bool{
	"minLength": true, "maxLength": true, "minItems": true, "maxItems": true,
	"minProperties": true, "maxProperties": true, "minContains": true, "maxContains": true,
}

// word refuses keywords that the library does not refuse, or refuses with a misleading reason.
func word(name string, v any, at string) error {
	switch text, isText := v.(string); {
	case isText && (name == "$dynamicRef" || name == "$recursiveRef"):
		return fmt.Errorf("it has %s, which is for schemas of schemas; use $ref, at #%s", name, cut(at))
	case name == "$schema" && isText && !dialects[strings.TrimSuffix(text, "#")]:
		return fmt.Errorf("its $schema is %s, at #%s; this host knows the drafts 2020-12, 2019-09, 07 and 06",
			quote(text), cut(at))
	}
	if n, isNumber := v.(json.Number); isNumber && counts[name] {
		if x, _ := parseNumber([]byte(n), nil); x.compare(maxCount) > 0 {
			return fmt.Errorf("%s is %s; it may be %s, at #%s", name, cut(n.String()), maxCount, cut(at))
		}
	}
	return nil
}

var maxCount = &number{digits: []byte("1"), exp: 15}

var dialects = map[string]bool{
	"https://json-schema.org/draft/2020-12/schema": true,
	"https://json-schema.org/draft/2019-09/schema": true,
	"http://json-schema.org/draft-07/schema":       true,
	"http://json-schema.org/draft-06/schema":       true,
}

// compiled has the library check a document and resolve its references. The library may panic for
// some documents; a panic counts as a refusal.
func compiled(doc any) (s *jsonschema.Schema, err error) {
	defer func() {
		if bug := recover(); bug != nil {
			s, err = nil, fmt.Errorf("it cannot be read: %v", bug)
		}
	}()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(outside{})
	c.UseRegexpEngine(func(text string) (jsonschema.Regexp, error) { return newPattern(text) })
	if err := c.AddResource(self, doc); err != nil {
		return nil, err
	}
	if s, err = c.Compile(self); err != nil {
		return nil, readable(err)
	}
	return s, nil
}

// outside refuses all references to other documents.
type outside struct{}

// Load implements jsonschema.URLLoader.
func (outside) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %s, which is outside of it; put what is meant into its $defs",
		quote(strings.TrimPrefix(url, self)))
}

// readable converts an error of the library into one sentence.
func readable(err error) error {
	var load *jsonschema.LoadURLError
	var invalid *jsonschema.SchemaValidationError
	var leaf *jsonschema.ValidationError
	switch {
	case errors.As(err, &load):
		return load.Err
	case errors.As(err, &invalid) && errors.As(invalid.Err, &leaf):
		for len(leaf.Causes) > 0 {
			leaf = deepest(leaf.Causes)
		}
		why := sentence(leaf.ErrorKind.LocalizedString(message.NewPrinter(language.English)))
		if _, isFormat := leaf.ErrorKind.(*kind.Format); isFormat {
			why = sentence(leaf.ErrorKind.(*kind.Format).Err.Error())
		}
		at := ""
		for _, name := range leaf.InstanceLocation {
			at = joined(at, name)
		}
		return fmt.Errorf("it is not a JSON Schema: %s, at #%s", why, cut(at))
	}
	return errors.New(strings.ReplaceAll(err.Error(), self, ""))
}

func deepest(causes []*jsonschema.ValidationError) *jsonschema.ValidationError {
	best := causes[0]
	for _, c := range causes {
		if len(c.InstanceLocation) > len(best.InstanceLocation) {
			best = c
		}
	}
	return best
}

// newPattern compiles a regular expression unless it is too large. Matching takes time linear in
// the size of the expression times that of the text. Go's expressions have no look-around and no
// backreferences.
func newPattern(text string) (*pattern, error) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("the pattern %s is not a regular expression that this host knows (RE2): %w",
			quote(text), err)
	}
	size := instructions(parsed)
	if size > MaxPattern {
		return nil, fmt.Errorf("the pattern %s has more than %d instructions; repeat less in it",
			quote(text), MaxPattern)
	}
	r, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	return &pattern{r, size}, nil
}

// instructions estimates the size of the program for an expression without compiling it, because
// the program of (x{1000}){9} would be large.
func instructions(r *syntax.Regexp) int {
	const enough = 1 << 20
	sum := 1
	if r.Op == syntax.OpLiteral {
		sum = len(r.Rune)
	}
	for _, sub := range r.Sub {
		sum = min(sum+instructions(sub), enough)
	}
	if r.Op == syntax.OpRepeat {
		sum = min(sum*max(r.Min, r.Max, 1), enough)
	}
	return sum
}

// sentence shortens a message of the library, at a character's boundary.
func sentence(s string) string { return cutTo(s, 3*maxWord) }

package describe

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/schema"
)

// Field is a place in the data that a schema describes, for people. Its texts are those of the module.
type Field struct {
	Path     string // such as lines[].amount; "" is the data as a whole
	Type     string // such as integer, date-time or [string]|null
	Required bool
	Limits   string // such as 1 to 8
	About    string
}

// Bounds of a list of fields: their number, and how deep they are.
const (
	maxFields = 200
	maxDeep   = 6
)

// Fields lists the places in the data that a schema describes, in the order of the schema: the members of
// objects, and what is in them. about is what the schema says of the data as a whole. more reports that there
// are others. The list is empty for a schema that accepts anything, and for {}.
func Fields(text string) (fields []Field, about string, more bool) {
	if text == "" || len(text) > schema.MaxBytes {
		return nil, "", text != ""
	}
	root, err := schema.Parse(text, schema.MaxValues, schema.MaxDepth)
	if err != nil {
		return nil, "", true
	}
	o, ok := root.(*schema.Object)
	if !ok {
		return nil, "", false
	}
	l := lister{refs: schema.Refs{Root: root}, open: map[*schema.Object]string{}}
	whole := l.resolve(o)
	if props, _ := get[*schema.Object](whole, "properties"); props == nil && len(whole.Names) > 0 {
		l.field("", o, true, 0)
	} else {
		l.open[whole] = "the data"
		l.members("", whole, 0)
	}
	return l.fields, sentences(whole), l.more
}

type lister struct {
	refs   schema.Refs
	open   map[*schema.Object]string // objects that enclose the place, with their names for people
	fields []Field
	more   bool
}

// maxRefs bounds how many references are followed at one place.
const maxRefs = 8

// resolve follows references, and the way to the only alternative beside null.
func (l *lister) resolve(o *schema.Object) *schema.Object {
	for range maxRefs {
		var next any
		if ref, ok := get[string](o, "$ref"); ok {
			next, _ = l.refs.Follow(ref)
		} else if one, _, ok := nullable(o); ok {
			next = one
		} else if all, ok := get[[]any](o, "allOf"); ok && len(all) == 1 {
			next = all[0]
		}
		inner, ok := next.(*schema.Object)
		if !ok {
			return o
		}
		o = inner
	}
	return o
}

// nullable is the only alternative beside null, if there is one.
func nullable(o *schema.Object) (one any, null, ok bool) {
	list, _ := get[[]any](o, "anyOf")
	if len(list) != 2 {
		return nil, false, false
	}
	if second, isObject := list[1].(*schema.Object); isObject {
		if t, _ := get[string](second, "type"); t == "null" {
			return list[0], true, true
		}
	}
	return nil, false, false
}

// members lists the members of an object, and of what is in it.
func (l *lister) members(path string, o *schema.Object, depth int) {
	props, _ := get[*schema.Object](o, "properties")
	if props == nil {
		return
	}
	required, _ := get[[]any](o, "required")
	for _, name := range props.Names {
		x, _ := props.Get(name)
		one, ok := x.(*schema.Object)
		if !ok {
			one = &schema.Object{}
		}
		l.field(path+name, one, slices.Contains(required, any(name)), depth)
	}
}

func (l *lister) field(path string, o *schema.Object, required bool, depth int) {
	if len(l.fields) == maxFields {
		l.more = true
		return
	}
	is := l.resolve(o)
	limits := limitsOf(o)
	if is != o {
		limits = append(limits, limitsOf(is)...)
	}
	about := sentences(o)
	if about == "" {
		about = sentences(is)
	}
	l.fields = append(l.fields, Field{path, l.kind(o, maxDeep-depth), required, strings.Join(limits, ", "), about})
	l.below(path, is, depth)
}

// below lists what is in the values at a place, if there is more to say than their type.
func (l *lister) below(path string, o *schema.Object, depth int) {
	if _, ok := l.open[o]; ok {
		return
	}
	if depth == maxDeep {
		l.more = true
		return
	}
	l.open[o] = path
	defer delete(l.open, o)
	if path != "" {
		l.members(path+".", o, depth+1)
	}
	for i, word := range []string{"items", "additionalProperties"} {
		mark := []string{"[]", ".*"}[i]
		x, _ := get[*schema.Object](o, word)
		if x == nil {
			continue
		}
		one := l.resolve(x)
		switch props, _ := get[*schema.Object](one, "properties"); {
		case props != nil && l.open[one] == "":
			l.open[one] = path + mark
			l.members(path+mark+".", one, depth+1)
			delete(l.open, one)
		case props == nil && (len(limitsOf(one)) > 0 || sentences(one) != ""):
			l.field(path+mark, x, false, depth+1)
		}
	}
}

// kind is the type of a value in a few words.
func (l *lister) kind(o *schema.Object, depth int) string {
	if depth == 0 {
		return "…"
	}
	if one, _, ok := nullable(o); ok {
		if inner, ok := one.(*schema.Object); ok {
			return l.kind(inner, depth-1) + "|null"
		}
	}
	o = l.resolve(o)
	if name := l.open[o]; name != "" {
		return "as " + name
	}
	var types []string
	for _, t := range typesOf(o) {
		switch format, _ := get[string](o, "format"); {
		case t == "array":
			t = "[" + l.inner(o, "items", depth) + "]"
		case t == "object" && has(o, "additionalProperties") && !has(o, "properties"):
			t = "{…: " + l.inner(o, "additionalProperties", depth) + "}"
		case t == "string" && format != "":
			t = format
		}
		types = append(types, t)
	}
	switch {
	case len(types) > 0:
		return strings.Join(types, "|")
	case has(o, "const"), has(o, "enum"):
		return "value"
	case has(o, "anyOf"), has(o, "oneOf"):
		return "one of several"
	case has(o, "properties"):
		return "object"
	}
	return "any"
}

func (l *lister) inner(o *schema.Object, word string, depth int) string {
	x, _ := get[*schema.Object](o, word)
	if x == nil {
		return "any"
	}
	return l.kind(x, depth-1)
}

func has(o *schema.Object, name string) bool { _, ok := o.Get(name); return ok }

func typesOf(o *schema.Object) (types []string) {
	t, _ := o.Get("type")
	switch t := t.(type) {
	case string:
		return []string{t}
	case []any:
		for _, x := range t {
			if name, ok := x.(string); ok {
				types = append(types, name)
			}
		}
	}
	return types
}

// limitsOf says what a schema requires of a value beside its type.
func limitsOf(o *schema.Object) (limits []string) {
	add := func(text string) {
		if text != "" {
			limits = append(limits, text)
		}
	}
	if v, ok := o.Get("const"); ok {
		add("= " + valueText(v))
	}
	if list, ok := get[[]any](o, "enum"); ok {
		var values []string
		for _, v := range list[:min(len(list), maxValues)] {
			values = append(values, valueText(v))
		}
		if more := len(list) - len(values); more > 0 {
			values = append(values, "and "+strconv.Itoa(more)+" more")
		}
		add(strings.Join(values, "|"))
	}
	add(span(o, "minimum", "maximum", ""))
	if n, ok := get[json.Number](o, "exclusiveMinimum"); ok {
		add("above " + n.String())
	}
	if n, ok := get[json.Number](o, "exclusiveMaximum"); ok {
		add("below " + n.String())
	}
	if n, ok := get[json.Number](o, "multipleOf"); ok {
		add("a multiple of " + n.String())
	}
	add(span(o, "minLength", "maxLength", "characters"))
	if p, ok := get[string](o, "pattern"); ok {
		add("like " + p)
	}
	if e, ok := get[string](o, "contentEncoding"); ok {
		add("in " + e)
	}
	add(span(o, "minItems", "maxItems", "elements"))
	if unique, _ := get[bool](o, "uniqueItems"); unique {
		add("all different")
	}
	add(span(o, "minProperties", "maxProperties", "members"))
	return limits
}

// span says between which numbers something has to be.
func span(o *schema.Object, low, high, what string) string {
	min, hasMin := get[json.Number](o, low)
	max, hasMax := get[json.Number](o, high)
	text := ""
	switch {
	case hasMin && hasMax && min == max:
		text = min.String()
	case hasMin && hasMax:
		text = min.String() + " to " + max.String()
	case hasMin:
		text = "at least " + min.String()
	case hasMax:
		text = "at most " + max.String()
	default:
		return ""
	}
	return strings.TrimSpace(text + " " + what)
}

// sentences is what a schema says of its values: title, description, default and an example.
func sentences(o *schema.Object) string {
	var parts []string
	for _, word := range []string{"title", "description"} {
		if text, _ := get[string](o, word); text != "" {
			parts = append(parts, text)
		}
	}
	if deprecated, _ := get[bool](o, "deprecated"); deprecated {
		parts = append(parts, "(deprecated)")
	}
	if v, ok := o.Get("default"); ok {
		parts = append(parts, "(default "+valueText(v)+")")
	}
	if list, _ := get[[]any](o, "examples"); len(list) > 0 {
		parts = append(parts, "(such as "+valueText(list[0])+")")
	}
	return strings.Join(parts, " ")
}

// Bounds of what is shown of values: the bytes of one, and how many of those that are allowed.
const (
	maxValueText = 60
	maxValues    = 20
)

// valueText is a value as people write it: text without quotation marks if nothing is lost by that.
func valueText(v any) string {
	text := string(schema.AppendJSON(nil, v))
	if s, ok := v.(string); ok && s != "" && strconv.Quote(s) == `"`+s+`"` && !strings.ContainsAny(s, " |,()") {
		text = s
	}
	if len(text) > maxValueText {
		text = strings.ToValidUTF8(text[:maxValueText], "") + "…"
	}
	return text
}

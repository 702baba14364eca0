package jsonplan

import (
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// keyword is a member of a schema: its name and its value as JSON.
type keyword struct {
	name, text string
	on         shape // of the values that it limits; 0 for a note, which limits nothing
}

// shape is a set of forms of values.
type shape uint8

const (
	textShape   shape = 1 << iota // strings, and types with a text form
	numberShape                   // integers and floating point numbers
	listShape                     // slices
	mapShape
	otherShape
)

// word is a tag of a field that goes into the schema.
type word struct {
	tag string
	on  shape // of the values that it limits; 0 for a note
	// read returns the value of the keyword as JSON, or says what is wrong with the tag's.
	read func(r *tagReader, text string) (json, problem string)
}

// words are the tags that describe a field, in the order in which a schema has them. The names and their
// meaning are those of the library huma.
var words = [...]word{
	{"doc", 0, (*tagReader).prose},
	{"deprecated", 0, (*tagReader).truth},
	{"format", textShape, (*tagReader).format},
	{"enum", textShape | numberShape, (*tagReader).enum},
	{"minimum", numberShape, (*tagReader).number},
	{"maximum", numberShape, (*tagReader).number},
	{"exclusiveMinimum", numberShape, (*tagReader).number},
	{"exclusiveMaximum", numberShape, (*tagReader).number},
	{"multipleOf", numberShape, (*tagReader).divisor},
	{"minLength", textShape, (*tagReader).count},
	{"maxLength", textShape, (*tagReader).count},
	{"pattern", textShape, (*tagReader).pattern},
	{"minItems", listShape, (*tagReader).count},
	{"maxItems", listShape, (*tagReader).count},
	{"uniqueItems", listShape, (*tagReader).truth},
	{"minProperties", mapShape, (*tagReader).count},
	{"maxProperties", mapShape, (*tagReader).count},
	{"default", 0, (*tagReader).preset},
	{"example", 0, (*tagReader).example},
}

// keywordOf is the keyword that a tag becomes.
func keywordOf(tag string) string {
	switch tag {
	case "doc":
		return "description"
	case "example":
		return "examples"
	}
	return tag
}

// pairs are keywords of which the first must not be above the second.
var pairs = [...][2]string{
	{"minimum", "maximum"}, {"exclusiveMinimum", "exclusiveMaximum"}, {"minLength", "maxLength"},
	{"minItems", "maxItems"}, {"minProperties", "maxProperties"},
}

// tagReader reads the tags of one field.
type tagReader struct {
	maker    *Maker
	plan     *Plan // of the field
	leaf     *Plan // of the values in its pointers, lists and maps
	shapes   shape // of the field, of the values in it, and so on to the leaf
	optional bool
}

// describe sets the keywords of a field from its tags. The problem names the tag.
func (m *Maker) describe(f *field, tag reflect.StructTag) (problem string) {
	var texts [len(words)]string
	found := wordsIn(tag, &texts)
	if found == 0 {
		return ""
	}
	r := tagReader{maker: m, plan: f.plan, optional: !f.required(asInput)}
	if problem = r.walk(); problem != "" {
		return problem
	}
	for i := range words {
		w, text := &words[i], texts[i]
		if found>>i&1 == 0 {
			continue
		}
		json := ""
		if w.on != 0 && w.on&r.shapes == 0 {
			problem = "is for " + w.on.String() + ", and " + f.plan.typ.String() + " is none of these"
		} else {
			json, problem = w.read(&r, text)
		}
		if problem != "" {
			return "the tag " + w.tag + ":" + strconv.Quote(text) + " " + problem
		}
		k := keyword{keywordOf(w.tag), json, w.on}
		if w.on == 0 {
			f.notes = append(f.notes, k)
		} else {
			f.limits = append(f.limits, k)
		}
	}
	if len(f.limits) > 1 {
		return f.contradiction()
	}
	return ""
}

// wordsIn reads the words in a tag, and returns the set of those that are there. It goes through the tag once:
// a lookup for each word would be a third of the time in which a small module starts.
func wordsIn(tag reflect.StructTag, texts *[len(words)]string) (found uint32) {
	rest := string(tag)
	for {
		for rest != "" && rest[0] == ' ' {
			rest = rest[1:]
		}
		colon := strings.IndexByte(rest, ':')
		if colon <= 0 || colon+1 >= len(rest) || rest[colon+1] != '"' {
			return found
		}
		name := rest[:colon]
		rest = rest[colon+1:]
		end := 1
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(rest) {
			return found
		}
		quoted := rest[:end+1]
		rest = rest[end+1:]
		if name == "json" {
			continue
		}
		for i := range words {
			if words[i].tag != name || found>>i&1 == 1 {
				continue
			}
			if text, err := strconv.Unquote(quoted); err == nil {
				texts[i] = text
				found |= 1 << i
			}
		}
	}
}

// contradiction finds limits that no value is within.
func (f *field) contradiction() string {
	value := func(name string) (float64, string) {
		for _, k := range f.limits {
			if k.name == name {
				x, _ := strconv.ParseFloat(k.text, 64)
				return x, k.text
			}
		}
		return 0, ""
	}
	for _, p := range pairs {
		low, first := value(p[0])
		high, second := value(p[1])
		if first != "" && second != "" && low > high {
			return "the tag " + p[0] + ":\"" + first + "\" is above " + p[1] + ":\"" + second + "\""
		}
	}
	return ""
}

// String names the shapes for people.
func (s shape) String() string {
	switch s {
	case textShape:
		return "text"
	case numberShape:
		return "numbers"
	case listShape:
		return "slices"
	case mapShape:
		return "maps"
	}
	return "text and numbers"
}

// shapeOf is the shape of a type that is not a pointer.
func shapeOf(t reflect.Type) shape {
	if isText(t) {
		return textShape
	}
	switch k := t.Kind(); {
	case k == reflect.String:
		return textShape
	case k >= reflect.Int && k <= reflect.Float64:
		return numberShape
	case k == reflect.Slice && (t.Elem().Kind() != reflect.Uint8 || isText(t.Elem())):
		return listShape
	case k == reflect.Map:
		return mapShape
	}
	return otherShape
}

// walk finds the leaf and the shapes on the way to it.
func (r *tagReader) walk() (problem string) {
	t := r.plan.typ
	for range maxDepth {
		s := shapeOf(t)
		r.shapes |= s
		array := s == otherShape && t.Kind() == reflect.Array
		if s != listShape && s != mapShape && !array && t.Kind() != reflect.Pointer {
			r.leaf, problem = r.maker.plan(t)
			return problem
		}
		t = t.Elem()
	}
	return "tags cannot describe " + r.plan.typ.String() + ", which consists of itself"
}

func (r *tagReader) prose(text string) (string, string) {
	if !isProse(text) {
		return "", "has no text, space around it, or bytes that are not UTF-8"
	}
	if r.leaf.unit != "" {
		text += " (" + r.leaf.unit + ")"
	}
	return quoted(text), ""
}

func isProse(text string) bool { return text != "" && !spaced(text) && utf8.ValidString(text) }

// spaced reports whether a text has space around it.
func spaced(text string) bool { return text != "" && (text[0] <= ' ' || text[len(text)-1] <= ' ') }

func quoted(text string) string { return string(appendString(nil, text)) }

func (r *tagReader) truth(text string) (string, string) {
	if text != "true" {
		return "", `can only be "true"`
	}
	return text, ""
}

func (r *tagReader) format(text string) (string, string) {
	ok := text != ""
	for i := range len(text) {
		c := text[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' ||
			c == '_')
	}
	switch {
	case !ok:
		return "", "is not the name of a format, such as email"
	case r.leaf.typ == timeType:
		return "", "is on a time, whose format is date-time"
	}
	return quoted(text), ""
}

// enum reads values that are separated by commas.
func (r *tagReader) enum(text string) (string, string) {
	var seen []string
	list := ""
	for more := true; more; {
		var one string
		if one, text, more = strings.Cut(text, ","); one == "" || spaced(one) {
			return "", "has a value that is empty or has space around it; values are separated by a comma alone"
		}
		json, problem := r.scalar(one)
		if problem != "" {
			return "", problem
		}
		for _, other := range seen {
			if other == json {
				return "", "has the value " + one + " twice"
			}
		}
		seen = append(seen, json)
		list += "," + json
	}
	return "[" + list[1:] + "]", ""
}

// scalar reads a value of the leaf, which is text or a number.
func (r *tagReader) scalar(text string) (json, problem string) {
	json = text
	if shapeOf(r.leaf.typ) == textShape {
		if !utf8.ValidString(text) {
			return "", "is not UTF-8"
		}
		json = quoted(text)
	}
	if err := r.leaf.DecodeInput([]byte(json), reflect.New(r.leaf.typ).UnsafePointer()); err != nil {
		return "", "has " + text + ", which is not a value of " + r.leaf.typ.String() + ": " + err.Error()
	}
	return json, ""
}

func (r *tagReader) number(text string) (string, string) {
	if spaced(text) {
		return "", "is not a number"
	}
	return r.scalar(text)
}

func (r *tagReader) divisor(text string) (string, string) {
	const maxDigits = 18 // of a host
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || x <= 0 || len(text) > maxDigits {
		return "", "is not a number above 0 of at most 18 digits"
	}
	return r.number(text)
}

func (r *tagReader) count(text string) (string, string) {
	if n, err := strconv.ParseUint(text, 10, 31); err != nil || strconv.FormatUint(n, 10) != text {
		return "", "is not a whole number from 0 to 2147483647"
	}
	return text, ""
}

func (r *tagReader) pattern(text string) (string, string) {
	if !utf8.ValidString(text) {
		return "", "is not UTF-8"
	}
	return quoted(text), unreadable(text)
}

// value reads a value of the field: text as it is, anything else as JSON. It is decoded when the plans of all
// types are complete.
func (r *tagReader) value(text string) (json, problem string) {
	t := r.plan.typ
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	json = text
	if shapeOf(t) == textShape {
		json = quoted(text)
	}
	return json, ""
}

func (r *tagReader) preset(text string) (string, string) {
	if !r.optional {
		return "", "is on a required member; a default is for one that may be left out"
	}
	return r.value(text)
}

func (r *tagReader) example(text string) (string, string) {
	json, problem := r.value(text)
	return "[" + json + "]", problem
}

// later checks the values of a field's notes, which need the plans of all types.
func (f *field) later() (problem string) {
	for _, k := range f.notes {
		value := k.text
		switch k.name {
		case "examples":
			value = value[1 : len(value)-1]
		case "default":
		default:
			continue
		}
		err := f.plan.DecodeInput([]byte(value), reflect.New(f.plan.typ).UnsafePointer())
		if err == nil {
			s := &schema{open: map[*Plan]int{}, input: true}
			s.plan(f.plan, nil, f.limits)
			err = Fits(string(s.b), []byte(value))
		}
		if err != nil {
			tag := strings.TrimSuffix(k.name, "s")
			return "the tag " + tag + " has " + value + ", which the field cannot have: " + err.Error()
		}
	}
	return ""
}

// blank reads the tag of a field named _, which describes the struct.
func (p *Plan) blank(tag reflect.StructTag) (problem string) {
	var texts [len(words)]string
	found := wordsIn(tag, &texts)
	for i, text := range texts {
		switch {
		case found>>i&1 == 0:
		case words[i].tag != "doc":
			return "the tag " + words[i].tag + " is on a field that is not in JSON"
		case !isProse(text):
			return "the tag doc has no text, space around it, or bytes that are not UTF-8"
		default:
			p.own = append(p.own, keyword{"description", quoted(text), 0})
		}
	}
	return ""
}

// textFormat is the format of a type with a text form, or "". Types are known by their names, so that no
// module contains packages that it does not use.
func textFormat(t reflect.Type) string {
	switch t.PkgPath() + "." + t.Name() {
	case "net/netip.Addr":
		return "ip"
	case "net/netip.AddrPort":
		return "ip-port"
	case "net/netip.Prefix":
		return "cidr"
	}
	if t.Name() == "UUID" && t.Kind() == reflect.Array && t.Len() == 16 {
		return "uuid"
	}
	return ""
}

package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// Object is a JSON object whose members keep their order.
type Object struct {
	Names  []string // of the members, each once
	values map[string]any
}

// Get returns the value of a member: nil, a bool, a json.Number, a string, a []any or an *Object.
// A nil Object has no members.
func (o *Object) Get(name string) (value any, ok bool) {
	if o == nil {
		return nil, false
	}
	value, ok = o.values[name]
	return value, ok
}

// Set adds a member at the end, or replaces its value.
func (o *Object) Set(name string, value any) {
	if o.values == nil {
		o.values = map[string]any{}
	}
	if _, ok := o.values[name]; !ok {
		o.Names = append(o.Names, name)
	}
	o.values[name] = value
}

// Delete removes a member, if it is there.
func (o *Object) Delete(name string) {
	if _, ok := o.Get(name); !ok {
		return
	}
	delete(o.values, name)
	for i := range o.Names {
		if o.Names[i] == name {
			o.Names = append(o.Names[:i:i], o.Names[i+1:]...)
			return
		}
	}
}

// Parse decodes JSON, with objects as *Object and numbers as json.Number. The text has at most
// maxValues values, nested in at most maxDepth levels.
func Parse(text string, maxValues, maxDepth int) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	p := parser{d, maxValues}
	v, err := p.value(maxDepth)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("it has something after its end")
	}
	return v, nil
}

type parser struct {
	d    *json.Decoder
	left int // values
}

func (p *parser) value(depth int) (any, error) {
	if p.left--; p.left < 0 {
		return nil, errors.New("it has too many values")
	}
	t, err := p.d.Token()
	if err != nil {
		return nil, err
	}
	open, isOpen := t.(json.Delim)
	if !isOpen {
		return t, nil
	}
	if depth == 0 {
		return nil, errors.New("it is nested too deeply")
	}
	var v any
	if open == '[' {
		v, err = p.list(depth)
	} else {
		v, err = p.object(depth)
	}
	if err == nil {
		_, err = p.d.Token()
	}
	return v, err
}

func (p *parser) list(depth int) (any, error) {
	list := []any{}
	for p.d.More() {
		x, err := p.value(depth - 1)
		if err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, nil
}

func (p *parser) object(depth int) (any, error) {
	o := &Object{}
	for p.d.More() {
		name, err := p.d.Token()
		if err != nil {
			return nil, err
		}
		x, err := p.value(depth - 1)
		if err != nil {
			return nil, err
		}
		o.Set(name.(string), x)
	}
	return o, nil
}

// AppendJSON appends the JSON of a value that [Parse] may return.
func AppendJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case json.Number:
		return append(b, v...)
	case string:
		return appendText(b, v)
	case []any:
		b = append(b, '[')
		for i, x := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendJSON(b, x)
		}
		return append(b, ']')
	case *Object:
		b = append(b, '{')
		for i, name := range v.Names {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendText(b, name), ':')
			b = AppendJSON(b, v.values[name])
		}
		return append(b, '}')
	}
	panic(fmt.Sprintf("schema: a value of type %T", v))
}

func appendText(b []byte, text string) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string can always be encoded
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

// Refs follows references within a parsed schema. It is for one goroutine.
type Refs struct {
	Root    any
	anchors map[string]any // nil until they are needed
}

// maxRef bounds the references that are followed, in bytes.
const maxRef = 1 << 10

// Follow returns the part of the schema that a reference leads to: by JSON Pointer or by the name of
// an $anchor. It knows no other documents and no $id.
func (r *Refs) Follow(ref string) (part any, ok bool) {
	fragment, ok := strings.CutPrefix(ref, "#")
	if !ok || len(ref) > maxRef {
		return nil, false
	}
	if fragment, err := url.PathUnescape(fragment); err == nil && (fragment == "" || fragment[0] == '/') {
		return Pointed(r.Root, fragment)
	}
	if r.anchors == nil {
		r.anchors = map[string]any{}
		r.collect(r.Root)
	}
	part, ok = r.anchors[fragment]
	return part, ok
}

// collect finds the parts of a schema that have names.
func (r *Refs) collect(v any) {
	switch v := v.(type) {
	case *Object:
		name, isText := v.values["$anchor"].(string)
		if _, taken := r.anchors[name]; isText && !taken {
			r.anchors[name] = v
		}
		for _, n := range v.Names {
			r.collect(v.values[n])
		}
	case []any:
		for _, x := range v {
			r.collect(x)
		}
	}
}

// Pointed returns the part of a parsed JSON text that a JSON Pointer leads to.
func Pointed(root any, pointer string) (part any, ok bool) {
	if pointer == "" {
		return root, true
	}
	part, ok = root, pointer[0] == '/'
	for _, step := range strings.Split(pointer[1:], "/") {
		switch v := part.(type) {
		case *Object:
			part, ok = v.Get(unescaping.Replace(step))
		case []any:
			i, err := strconv.ParseUint(step, 10, 31)
			if ok = err == nil && i < uint64(len(v)); ok {
				part = v[i]
			}
		default:
			ok = false
		}
		if !ok {
			return nil, false
		}
	}
	return part, ok
}

var unescaping = strings.NewReplacer("~1", "/", "~0", "~")

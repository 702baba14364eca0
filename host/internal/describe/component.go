package describe

import (
	"encoding/json"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/schema"
)

// Dialects of JSON Schema that differ in what a document has to say.
type dialect int

const (
	draft6 dialect = 6
	draft7 dialect = 7
	draft9 dialect = 2019
	draft  dialect = 2020
)

func dialectOf(uri string, otherwise dialect) dialect {
	switch strings.TrimSuffix(uri, "#") {
	case "https://json-schema.org/draft/2020-12/schema":
		return draft
	case "https://json-schema.org/draft/2019-09/schema":
		return draft9
	case "http://json-schema.org/draft-07/schema":
		return draft7
	case "http://json-schema.org/draft-06/schema":
		return draft6
	}
	return otherwise
}

// rewriter turns one schema of a module into components of a document, in the dialect 2020-12. References
// of a module are relative to its own schema: by $id, $anchor or JSON Pointer. In the document each part
// that is referred to is a component of its own, and all references are JSON Pointers from the document's
// root. Keywords that the dialect does not have are left out, and so are values that other readers of
// schemas refuse.
//
// The schema has been compiled, so it is well-formed, and its references lead somewhere.
type rewriter struct {
	key       string // of the component
	root      any
	scopes    map[*schema.Object]scope  // of all schemas that were visited
	resources map[string]*schema.Object // by URI
	anchors   map[string]*schema.Object // by URI with fragment
	refs      []*schema.Object          // schemas with a $ref, as visit finds them
	targets   map[*schema.Object]string // what is referred to, with the key of its component
	order     []*schema.Object          // the targets, in the order in which they were found
}

// scope is how the references and keywords of a schema are read.
type scope struct {
	base    string // URI
	dialect dialect
}

// rewrite returns the components of a schema, by key. The first has the given key.
func rewrite(key, text string) (keys []string, components map[string]*schema.Object, err error) {
	root, err := schema.Parse(text, schema.MaxValues, schema.MaxDepth)
	if err != nil {
		return nil, nil, err
	}
	r := &rewriter{key: key, root: root, scopes: map[*schema.Object]scope{}, targets: map[*schema.Object]string{},
		resources: map[string]*schema.Object{}, anchors: map[string]*schema.Object{}}
	if o, ok := root.(*schema.Object); ok {
		r.targets[o] = key
		r.resources[self] = o
	}
	r.visit(root, scope{self, draft})
	for i := 0; i < len(r.refs); i++ { // what a reference leads to may have more of them
		if o, ok := r.target(r.refs[i]).(*schema.Object); ok {
			r.name(o)
		}
	}
	keys, components = []string{key}, map[string]*schema.Object{key: r.whole(root)}
	for _, o := range r.order {
		keys = append(keys, r.targets[o])
		components[r.targets[o]] = r.object(o)
	}
	return keys, components, nil
}

// self is the address of the schema, relative to which its references are read.
const self = "https://schema.invalid/"

// name gives a target a component.
func (r *rewriter) name(o *schema.Object) {
	if _, ok := r.targets[o]; !ok {
		r.order = append(r.order, o)
		r.targets[o] = r.key + "." + strconv.Itoa(len(r.order))
	}
}

// children are the keywords whose values are, or contain, schemas.
var children = map[string]bool{
	"additionalProperties": true, "unevaluatedProperties": true, "unevaluatedItems": true, "propertyNames": true,
	"contains": true, "not": true, "if": true, "then": true, "else": true, "contentSchema": true, "items": true,
	"additionalItems": true, "allOf": true, "anyOf": true, "oneOf": true, "prefixItems": true,
}

// dictionaries are the keywords whose values are objects of schemas.
var dictionaries = map[string]bool{
	"properties": true, "patternProperties": true, "dependentSchemas": true, "$defs": true, "definitions": true,
	"dependencies": true,
}

// visit finds the resources, anchors and references of a schema.
func (r *rewriter) visit(v any, at scope) {
	o, ok := v.(*schema.Object)
	if !ok {
		return
	}
	if _, seen := r.scopes[o]; seen {
		return
	}
	if uri, ok := get[string](o, "$schema"); ok {
		at.dialect = dialectOf(uri, at.dialect)
	}
	_, refers := get[string](o, "$ref")
	if id, ok := get[string](o, "$id"); ok && !(refers && at.dialect <= draft7) {
		at.base = r.identify(o, id, at.base)
	}
	r.scopes[o] = at
	for _, word := range []string{"$anchor", "$dynamicAnchor"} {
		if name, ok := get[string](o, word); ok {
			r.anchors[at.base+"#"+name] = o
		}
	}
	if refers {
		r.refs = append(r.refs, o)
	}
	for _, name := range o.Names {
		x, _ := o.Get(name)
		switch {
		case children[name]:
			r.visit(x, at)
			list, _ := x.([]any)
			for _, one := range list {
				r.visit(one, at)
			}
		case dictionaries[name]:
			if all, ok := x.(*schema.Object); ok {
				for _, n := range all.Names {
					one, _ := all.Get(n)
					r.visit(one, at)
				}
			}
		}
	}
}

// identify registers the $id of a schema and returns the base of the references in it.
func (r *rewriter) identify(o *schema.Object, id, base string) string {
	u, ok := joined(base, id)
	if !ok {
		return base
	}
	if fragment := u.Fragment; fragment != "" { // an anchor of the drafts 06 and 07
		u.Fragment, u.RawFragment = "", ""
		r.anchors[u.String()+"#"+fragment] = o
		return base
	}
	u.Fragment, u.RawFragment = "", ""
	r.resources[u.String()] = o
	return u.String()
}

// maxRef bounds the references and ids that are followed, in bytes.
const maxRef = 1 << 10

func joined(base, ref string) (*url.URL, bool) {
	if len(ref) > maxRef || len(base) > 4*maxRef {
		return nil, false
	}
	b, err := url.Parse(base)
	if err != nil {
		return nil, false
	}
	u, err := b.Parse(ref)
	return u, err == nil
}

// target returns the part of the schema that the $ref of o leads to: an *Object or a bool; or nil.
func (r *rewriter) target(o *schema.Object) any {
	ref, _ := get[string](o, "$ref")
	u, ok := joined(r.scopes[o].base, ref)
	if !ok {
		return nil
	}
	fragment := u.Fragment
	u.Fragment, u.RawFragment = "", ""
	if fragment != "" && fragment[0] != '/' {
		if a := r.anchors[u.String()+"#"+fragment]; a != nil {
			return a
		}
		return nil
	}
	resource := r.resources[u.String()]
	if resource == nil {
		return nil
	}
	part, _ := schema.Pointed(resource, fragment)
	if p, ok := part.(*schema.Object); ok {
		r.visit(p, r.scopes[resource]) // it may be in a place that is not known to have schemas
		return p
	}
	if b, ok := part.(bool); ok {
		return b
	}
	return nil
}

// sub writes a schema in its place: what is referred to is a reference there, too.
func (r *rewriter) sub(v any) *schema.Object {
	if o, ok := v.(*schema.Object); ok {
		if key, ok := r.targets[o]; ok {
			return reference(key)
		}
	}
	return r.whole(v)
}

// whole writes a schema.
func (r *rewriter) whole(v any) *schema.Object {
	switch v := v.(type) {
	case *schema.Object:
		return r.object(v)
	case bool:
		if !v {
			return objectOf("not", &schema.Object{})
		}
	}
	return &schema.Object{}
}

func reference(key string) *schema.Object { return objectOf("$ref", schemaRef+key) }

// schemaRef is where the schemas of a document are.
const schemaRef = "#/components/schemas/"

// objectOf makes an object of names and values.
func objectOf(pairs ...any) *schema.Object {
	o := &schema.Object{}
	for i := 0; i < len(pairs); i += 2 {
		o.Set(pairs[i].(string), pairs[i+1])
	}
	return o
}

// object writes the keywords of a schema.
func (r *rewriter) object(o *schema.Object) *schema.Object {
	w := &written{rewriter: r, scope: r.scopes[o], from: o, to: &schema.Object{}}
	if _, ok := get[string](o, "$ref"); ok {
		w.reference()
		if w.scope.dialect <= draft7 { // beside a reference nothing counts
			return w.finished()
		}
	}
	for _, name := range o.Names {
		x, _ := o.Get(name)
		w.keyword(name, x)
	}
	return w.finished()
}

// written is a schema that is being written.
type written struct {
	*rewriter
	scope
	from, to *schema.Object
	also     []any    // schemas that have to fit, too
	unsaid   []string // patterns that were left out
}

func (w *written) reference() {
	switch t := w.target(w.from).(type) {
	case *schema.Object:
		w.to.Set("$ref", schemaRef+w.targets[t])
	case bool:
		if !t {
			w.never()
		}
	}
}

func (w *written) never() { w.also = append(w.also, w.whole(false)) }

// finished adds what is not in the place of a keyword.
func (w *written) finished() *schema.Object {
	if len(w.also) > 0 {
		all, _ := get[[]any](w.to, "allOf")
		w.to.Set("allOf", append(slices.Clone(all), w.also...))
	}
	if len(w.unsaid) > 0 {
		text, _ := get[string](w.to, "description")
		w.to.Set("description", strings.TrimSpace(text+"\n\nIt also has to match "+strings.Join(w.unsaid, " and ")+
			", as RE2 reads it."))
	}
	return w.to
}

// notes are the keywords that only inform, with the type of their values.
var notes = map[string]func(any) bool{
	"title": is[string], "description": is[string], "format": is[string], "contentEncoding": is[string],
	"contentMediaType": is[string], "deprecated": is[bool], "readOnly": is[bool], "writeOnly": is[bool],
	"default": finite, "examples": func(v any) bool { return is[[]any](v) && finite(v) },
}

func is[T any](v any) bool { _, ok := v.(T); return ok }

// numbers are the keywords with a number, and counts those with a count.
var (
	numbers = []string{"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
	counts  = []string{"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
		"minContains", "maxContains"}
)

// keyword writes a keyword if the dialect has it. The cases are those of the draft 2020-12 and what earlier
// drafts call otherwise.
func (w *written) keyword(name string, v any) {
	fits, isNote := notes[name]
	switch {
	case isNote:
		if fits(v) {
			w.to.Set(name, v)
		}
	case slices.Contains(numbers, name):
		if x, ok := number(v); ok && (name != "multipleOf" || x > 0) {
			w.to.Set(name, v)
		}
	case slices.Contains(counts, name):
		if x, ok := number(v); ok && x >= 0 && x == math.Trunc(x) && (w.dialect >= draft9 || !strings.Contains(name,
			"Contains")) {
			w.to.Set(name, v)
		}
	case name == "type" && (is[string](v) || texts(v)), name == "required" && texts(v),
		name == "uniqueItems" && is[bool](v), name == "const" && finite(v):
		w.to.Set(name, v)
	case name == "enum":
		if list, ok := v.([]any); ok && len(list) == 0 {
			w.never()
		} else if ok && finite(v) {
			w.to.Set(name, v)
		}
	case name == "pattern":
		if text, ok := v.(string); ok && portable(text) {
			w.to.Set(name, v)
		} else if ok {
			w.unsaid = append(w.unsaid, quoted(text))
		}
	default:
		w.applicator(name, v)
	}
}

// applicator writes a keyword that has schemas.
func (w *written) applicator(name string, v any) {
	switch name {
	case "not", "contains", "propertyNames":
		w.to.Set(name, w.sub(v))
	case "if", "then", "else":
		if w.dialect >= draft7 {
			w.to.Set(name, w.sub(v))
		}
	case "unevaluatedProperties", "unevaluatedItems":
		if w.dialect >= draft9 {
			w.to.Set(name, w.sub(v))
		}
	case "allOf", "anyOf", "oneOf":
		if list := w.list(v); len(list) > 0 {
			w.to.Set(name, list)
		}
	case "items", "additionalItems", "prefixItems":
		w.elements(name, v)
	case "properties", "dependentSchemas":
		if name == "properties" || w.dialect >= draft9 {
			w.dictionary(name, v)
		}
	case "additionalProperties", "patternProperties":
		w.members(name, v)
	case "dependentRequired":
		if all, ok := v.(*schema.Object); ok && w.dialect >= draft9 {
			w.dependent(all)
		}
	case "dependencies":
		if all, ok := v.(*schema.Object); ok && w.dialect <= draft7 {
			w.dependent(all)
		}
	}
}

func (w *written) list(v any) []any {
	list, _ := v.([]any)
	out := make([]any, 0, len(list))
	for _, x := range list {
		out = append(out, w.sub(x))
	}
	return out
}

func (w *written) dictionary(name string, v any) {
	all, ok := v.(*schema.Object)
	if !ok {
		return
	}
	out := &schema.Object{}
	for _, n := range all.Names {
		x, _ := all.Get(n)
		out.Set(n, w.sub(x))
	}
	w.to.Set(name, out)
}

// elements writes the schemas of elements, which had other names in earlier drafts.
func (w *written) elements(name string, v any) {
	first, isList := v.([]any)
	switch {
	case w.dialect == draft && name == "prefixItems" && len(first) > 0:
		w.to.Set(name, w.list(v))
	case w.dialect == draft && name == "items" && !isList, w.dialect < draft && name == "items" && !isList:
		w.to.Set("items", w.sub(v))
	case w.dialect < draft && name == "items" && len(first) > 0:
		w.to.Set("prefixItems", w.list(v))
	case w.dialect < draft && name == "additionalItems":
		if items, _ := w.from.Get("items"); is[[]any](items) {
			w.to.Set("items", w.sub(v))
		}
	}
}

// members writes the schemas of members that are not listed. A pattern that other readers do not know is
// left out; what would then be refused as another member is not refused in the document.
func (w *written) members(name string, v any) {
	all, _ := get[*schema.Object](w.from, "patternProperties")
	unknown := all != nil && slices.ContainsFunc(all.Names, func(p string) bool { return !portable(p) })
	if name == "additionalProperties" {
		if !unknown {
			w.to.Set(name, w.sub(v))
		}
		return
	}
	if all == nil {
		return
	}
	out := &schema.Object{}
	for _, pattern := range all.Names {
		if x, _ := all.Get(pattern); portable(pattern) {
			out.Set(pattern, w.sub(x))
		}
	}
	w.to.Set(name, out)
}

// dependent writes what members need when another is there: names, or a schema.
func (w *written) dependent(all *schema.Object) {
	schemas, names := &schema.Object{}, &schema.Object{}
	for _, n := range all.Names {
		x, _ := all.Get(n)
		if texts(x) {
			names.Set(n, x)
		} else if !is[[]any](x) {
			schemas.Set(n, w.sub(x))
		}
	}
	if len(names.Names) > 0 {
		w.to.Set("dependentRequired", names)
	}
	if len(schemas.Names) > 0 {
		w.to.Set("dependentSchemas", schemas)
	}
}

// texts reports whether a value is a list of texts.
func texts(v any) bool {
	list, ok := v.([]any)
	return ok && !slices.ContainsFunc(list, func(x any) bool { return !is[string](x) })
}

// number is a number that other readers can keep.
func number(v any) (float64, bool) {
	n, ok := v.(json.Number)
	x, err := n.Float64()
	return x, ok && err == nil
}

// finite reports whether other readers can keep a value: its numbers, and no member that they take for a
// reference.
func finite(v any) bool {
	switch v := v.(type) {
	case json.Number:
		_, ok := number(v)
		return ok
	case []any:
		return !slices.ContainsFunc(v, func(x any) bool { return !finite(x) })
	case *schema.Object:
		return !slices.ContainsFunc(v.Names, func(n string) bool { x, _ := v.Get(n); return n == "$ref" || !finite(x) })
	}
	return true
}

// get is a member of an object, if it is there and of that type.
func get[T any](o *schema.Object, name string) (v T, ok bool) {
	x, _ := o.Get(name)
	v, ok = x.(T)
	return v, ok
}

func quoted(text string) string { return "`" + strings.ReplaceAll(text, "`", "'") + "`" }

package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compile makes the plan for a schema, and estimates its size in memory in bytes. A nil plan
// accepts anything.
func compile(text string) (*node, int64, error) {
	if text == "" {
		return nil, 0, nil
	}
	s, err := read(text)
	if err != nil || s == nil {
		return nil, 0, err
	}
	p := planner{nodes: map[*jsonschema.Schema]*node{}}
	root, err := p.node(s)
	if err != nil || root == nil {
		return nil, 0, err
	}
	looks := looking{counted: map[*node]int{}}
	for _, n := range p.made {
		if _, err := looks.of(n); err != nil {
			return nil, 0, err
		}
	}
	return root, int64(len(p.made)*nodeBytes + p.instructions*instructionBytes + len(text)*textBytes), nil
}

// The estimated memory of a plan, in bytes: for each node with its rules, for each instruction of a
// pattern, and for each character of the schema's text, whose names and values are kept.
const (
	nodeBytes        = 1 << 10
	instructionBytes = 100
	textBytes        = 10
)

// planner converts the library's form of a schema into nodes.
type planner struct {
	nodes        map[*jsonschema.Schema]*node // including those under construction
	made         []*node
	instructions int // of patterns
}

// never is the schema false.
var never = &node{never: true}

func (p *planner) node(s *jsonschema.Schema) (*node, error) {
	switch {
	case s == nil:
		return nil, nil
	case s.Bool != nil && *s.Bool:
		return nil, nil
	case s.Bool != nil:
		return never, nil
	}
	if n, ok := p.nodes[s]; ok {
		return n, nil
	}
	_, place, _ := strings.Cut(s.Location, "#")
	n := &node{place: place}
	if len(p.made) == MaxNodes {
		return nil, fmt.Errorf("it is made of more than %d schemas", MaxNodes)
	}
	p.nodes[s], p.made = n, append(p.made, n)
	parts := []func(*node, *jsonschema.Schema) error{
		p.types, p.values, p.number, p.text, p.array, p.object, p.inPlace, p.leftover,
	}
	for _, part := range parts {
		if err := part(n, s); err != nil {
			return nil, err
		}
	}
	switch {
	case n.trivial():
		n = nil
	case len(n.all) == 1 && n.only():
		n = n.all[0] // nothing but a reference; if it is to itself, looking finds that
	}
	p.nodes[s] = n
	return n, nil
}

// only reports whether the node consists of subschemas that all have to fit, and nothing else.
func (n *node) only() bool {
	alone := *n
	alone.all = nil
	return alone.trivial()
}

// list makes the nodes of several schemas.
func (p *planner) list(schemas []*jsonschema.Schema) (nodes []*node, err error) {
	for _, s := range schemas {
		n, err := p.node(s)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func (p *planner) types(n *node, s *jsonschema.Schema) error {
	if s.Types == nil {
		return nil
	}
	for _, name := range s.Types.ToStrings() {
		n.types |= typesOf[name]
	}
	return nil
}

var typesOf = map[string]types{
	"null": isNull, "boolean": isBoolean, "number": isNumber | isInteger, "integer": isInteger,
	"string": isString, "array": isArray, "object": isObject,
}

func (p *planner) values(n *node, s *jsonschema.Schema) error {
	lists := [][]any{}
	if s.Const != nil {
		lists = append(lists, []any{*s.Const})
	}
	if s.Enum != nil {
		lists = append(lists, s.Enum.Values)
	}
	for i, list := range lists {
		v, err := valuesOf(list)
		if err != nil {
			return err
		}
		if i == 0 {
			n.enum = v
		} else { // const and enum
			n.all = append(n.all, &node{place: n.place, enum: v})
		}
	}
	return nil
}

func valuesOf(list []any) (*values, error) {
	v := &values{}
	for _, one := range list {
		text, err := json.Marshal(one)
		if err != nil {
			return nil, err
		}
		c := newCheck()
		c.b, c.walk.Text, c.maxSteps = text, text, freeSteps+perByte*len(text)
		h, ok := c.hash(0)
		if !ok {
			return nil, fmt.Errorf("the value %s cannot be compared", cut(string(text)))
		}
		v.list, v.texts = append(v.list, h), append(v.texts, string(text))
		v.short = max(v.short, len(text))
	}
	return v, nil
}

func (p *planner) number(n *node, s *jsonschema.Schema) error {
	if s.Minimum == nil && s.Maximum == nil && s.ExclusiveMinimum == nil && s.ExclusiveMaximum == nil &&
		s.MultipleOf == nil {
		return nil
	}
	bound := func(r *big.Rat) *number {
		if r == nil {
			return nil
		}
		return numberOf(r)
	}
	n.number = &numberRules{
		minimum: bound(s.Minimum), maximum: bound(s.Maximum),
		above: bound(s.ExclusiveMinimum), below: bound(s.ExclusiveMaximum),
	}
	if s.MultipleOf != nil {
		by := numberOf(s.MultipleOf)
		if n.number.multiple = divisorOf(by, by.String()); n.number.multiple == nil {
			return fmt.Errorf("multipleOf has to have 1 to 18 digits, at #%s", cut(n.place))
		}
	}
	return nil
}

func (p *planner) pattern(r jsonschema.Regexp, at string) (*pattern, error) {
	x := r.(*pattern)
	if p.instructions += x.instructions; p.instructions > MaxPatterns {
		return nil, fmt.Errorf("its patterns have more than %d instructions together, at #%s", MaxPatterns, cut(at))
	}
	return x, nil
}

func (p *planner) text(n *node, s *jsonschema.Schema) (err error) {
	if s.MinLength == nil && s.MaxLength == nil && s.Pattern == nil {
		return nil
	}
	n.text = &textRules{min: count(s.MinLength, 0), max: count(s.MaxLength, -1)}
	if s.Pattern != nil {
		n.text.pattern, err = p.pattern(s.Pattern, n.place)
	}
	return err
}

func count(n *int, otherwise int) int {
	if n == nil {
		return otherwise
	}
	return *n
}

func (p *planner) array(n *node, s *jsonschema.Schema) (err error) {
	a := &arrayRules{min: count(s.MinItems, 0), max: count(s.MaxItems, -1), unique: s.UniqueItems,
		contained: s.Contains != nil, minContains: count(s.MinContains, 1), maxContains: count(s.MaxContains, -1),
		containsCounts: s.DraftVersion >= 2020}
	var rest *jsonschema.Schema
	first := s.PrefixItems
	switch items := s.Items.(type) { // of drafts before 2020-12
	case *jsonschema.Schema:
		rest, a.restGiven = items, true
	case []*jsonschema.Schema:
		first = items
	}
	switch more := s.AdditionalItems.(type) {
	case bool:
		a.restGiven = true
		if !more {
			a.rest = never
		}
	case *jsonschema.Schema:
		rest, a.restGiven = more, true
	}
	if s.Items2020 != nil {
		rest, a.restGiven = s.Items2020, true
	}
	if a.first, err = p.list(first); err != nil {
		return err
	}
	if rest != nil {
		if a.rest, err = p.node(rest); err != nil {
			return err
		}
	}
	if a.contains, err = p.node(s.Contains); err != nil {
		return err
	}
	if a.min > 0 || a.max >= 0 || a.unique || a.contained || len(a.first) > 0 || a.restGiven {
		n.array = a
	}
	return nil
}

func (p *planner) object(n *node, s *jsonschema.Schema) (err error) {
	o := &objectRules{min: count(s.MinProperties, 0), max: count(s.MaxProperties, -1), needs: len(s.Required) > 0}
	place := func(name string) int {
		if i := slices.IndexFunc(o.members, func(m member) bool { return m.name == name }); i >= 0 {
			return i
		}
		o.members = append(o.members, member{name: name})
		return len(o.members) - 1
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		x, err := p.node(s.Properties[name])
		if err != nil {
			return err
		}
		o.members = append(o.members, member{name: name, declared: true, node: x})
	}
	for _, name := range s.Required {
		o.members[place(name)].required = true
	}
	if err := p.patterns(o, s, n.place); err != nil {
		return err
	}
	switch more := s.AdditionalProperties.(type) {
	case bool:
		o.restGiven = true
		if !more {
			o.rest = never
		}
	case *jsonschema.Schema:
		o.restGiven = true
		if o.rest, err = p.node(more); err != nil {
			return err
		}
	}
	if o.names, err = p.node(s.PropertyNames); err != nil {
		return err
	}
	if err := p.dependents(o, s, place); err != nil {
		return err
	}
	if len(o.members) > manyMembers {
		o.index = map[string]int{}
		for i, m := range o.members {
			o.index[m.name] = i
		}
	}
	if o.min > 0 || o.max >= 0 || len(o.members) > 0 || len(o.patterns) > 0 || o.restGiven || o.names != nil {
		n.object = o
	}
	return nil
}

func (p *planner) patterns(o *objectRules, s *jsonschema.Schema, at string) error {
	byText := map[string]jsonschema.Regexp{}
	for r := range s.PatternProperties {
		byText[r.String()] = r
	}
	for _, text := range slices.Sorted(maps.Keys(byText)) {
		r := byText[text]
		x, err := p.pattern(r, at)
		if err != nil {
			return err
		}
		one, err := p.node(s.PatternProperties[r])
		if err != nil {
			return err
		}
		o.patterns = append(o.patterns, patternMember{x, one})
	}
	return nil
}

// dependents collects the rules for members that depend on others, from the keywords of all drafts.
func (p *planner) dependents(o *objectRules, s *jsonschema.Schema, place func(string) int) error {
	needs, schemas := maps.Clone(s.DependentRequired), maps.Clone(s.DependentSchemas)
	if needs == nil {
		needs = map[string][]string{}
	}
	if schemas == nil {
		schemas = map[string]*jsonschema.Schema{}
	}
	for name, d := range s.Dependencies {
		switch d := d.(type) {
		case []string:
			needs[name] = d
		case *jsonschema.Schema:
			schemas[name] = d
		}
	}
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		d := dependent{member: place(name)}
		for _, need := range needs[name] {
			d.needs = append(d.needs, place(need))
		}
		o.dependent = append(o.dependent, d)
	}
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		x, err := p.node(schemas[name])
		if err != nil {
			return err
		}
		o.dependent = append(o.dependent, dependent{member: place(name), node: x, given: true})
	}
	return nil
}

func (p *planner) inPlace(n *node, s *jsonschema.Schema) (err error) {
	if s.RecursiveRef != nil || s.DynamicRef != nil {
		return errors.New("it refers to the schema of schemas, which this host cannot follow")
	}
	all, err := p.list(s.AllOf)
	if err != nil {
		return err
	}
	ref, err := p.node(s.Ref)
	if err != nil {
		return err
	}
	for _, x := range append(all, ref) {
		if x != nil {
			n.all = append(n.all, x)
		}
	}
	if n.any, err = p.list(s.AnyOf); err != nil {
		return err
	}
	if n.one, err = p.list(s.OneOf); err != nil {
		return err
	}
	if s.Not != nil {
		if n.not, err = p.node(s.Not); n.not == nil {
			n.never = true
		}
		if err != nil {
			return err
		}
	}
	if s.If == nil {
		return nil
	}
	parts, err := p.list([]*jsonschema.Schema{s.If, s.Then, s.Else})
	if err != nil {
		return err
	}
	if n.cond, n.then, n.els = parts[0], parts[1], parts[2]; n.cond == nil {
		if n.then != nil {
			n.all = append(n.all, n.then)
		}
		n.then, n.els = nil, nil
	}
	return nil
}

func (p *planner) leftover(n *node, s *jsonschema.Schema) error {
	for _, one := range []struct {
		s    *jsonschema.Schema
		into **leftover
	}{{s.UnevaluatedProperties, &n.otherMembers}, {s.UnevaluatedItems, &n.otherElements}} {
		if one.s == nil {
			continue
		}
		x, err := p.node(one.s)
		if err != nil {
			return err
		}
		*one.into = &leftover{x}
	}
	return nil
}

// looking counts how many subschemas may examine the same value. A schema that applies itself to
// the same value would never end, and is an error.
type looking struct{ counted map[*node]int }

func (l looking) of(n *node) (int, error) {
	const begun = -1
	switch c := l.counted[n]; {
	case c == begun:
		return 0, fmt.Errorf("it refers to itself without going into the data, at #%s", cut(n.place))
	case c > 0:
		return c, nil
	}
	l.counted[n] = begun
	sum, err := 1, error(nil)
	n.inPlace(func(x *node) {
		if err == nil {
			var more int
			more, err = l.of(x)
			sum += more
		}
	})
	if n.marks() {
		sum++
	}
	if err == nil && sum > MaxLooks {
		err = fmt.Errorf("it looks at the same value more than %d times, at #%s; have it name fewer alternatives",
			MaxLooks, cut(n.place))
	}
	if err != nil {
		return 0, err
	}
	l.counted[n] = sum
	return sum, nil
}

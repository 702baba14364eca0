package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
)

// withSchema formats a name with its data for people.
func withSchema(name, schema string) string {
	if len(schema) == 0 {
		return safetext.Text(name)
	}
	return safetext.Text(name) + "  " + schemaText(json.RawMessage(schema))
}

// schemaDepth is the maximum nesting of a schema that is shown in short.
const schemaDepth = 5

// schemaText is a JSON Schema in short form, such as {owner: string, tags?: [string]}: a question mark marks
// an optional member, an array is [its items], and an object as a map is {…: its values}. A schema that does
// not fit this form is shown unchanged. Its title and description follow. It is total.
func schemaText(raw json.RawMessage) string {
	text, ok := shortSchema(raw, schemaDepth)
	if !ok {
		return safetext.Body(raw)
	}
	var about struct{ Title, Description any }
	_ = json.Unmarshal(raw, &about) // it was parsed before
	for _, words := range []any{about.Title, about.Description} {
		if words, ok := words.(string); ok && words != "" {
			text += "  " + words
		}
	}
	return safetext.Text(text)
}

// schemaOf are the keywords that the short form supports. Limits and notes are not shown in it. With other
// keywords the schema is shown unchanged.
type schemaOf struct {
	Type       json.RawMessage            `json:"type"`
	Properties map[string]json.RawMessage `json:"properties"`
	Required   []string                   `json:"required"`
	Additional json.RawMessage            `json:"additionalProperties"`
	Items      json.RawMessage            `json:"items"`
	Enum       []json.RawMessage          `json:"enum"`
	Format     string                     `json:"format"`

	Title       json.RawMessage `json:"title"`
	Description json.RawMessage `json:"description"`
	Schema      json.RawMessage `json:"$schema"`
	Encoding    json.RawMessage `json:"contentEncoding"`
	Minimum     json.RawMessage `json:"minimum"`
	Maximum     json.RawMessage `json:"maximum"`
	Above       json.RawMessage `json:"exclusiveMinimum"`
	Below       json.RawMessage `json:"exclusiveMaximum"`
	Multiple    json.RawMessage `json:"multipleOf"`
	MinLength   json.RawMessage `json:"minLength"`
	MaxLength   json.RawMessage `json:"maxLength"`
	Pattern     json.RawMessage `json:"pattern"`
	MinItems    json.RawMessage `json:"minItems"`
	MaxItems    json.RawMessage `json:"maxItems"`
	Unique      json.RawMessage `json:"uniqueItems"`
	MinMembers  json.RawMessage `json:"minProperties"`
	MaxMembers  json.RawMessage `json:"maxProperties"`
	Default     json.RawMessage `json:"default"`
	Examples    json.RawMessage `json:"examples"`
	Deprecated  json.RawMessage `json:"deprecated"`
}

func shortSchema(raw json.RawMessage, depth int) (string, bool) {
	switch string(raw) {
	case "true", "{}":
		return "any", true
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	var s schemaOf
	if depth == 0 || d.Decode(&s) != nil || d.More() {
		return "", false
	}
	if s.Enum != nil {
		var values []string
		for _, v := range s.Enum {
			values = append(values, safetext.Body(v))
		}
		return strings.Join(values, "|"), true
	}
	types, ok := schemaTypes(s.Type)
	if !ok {
		return "", false
	}
	for i, t := range types {
		switch {
		case t == "object":
			types[i], ok = shortObject(&s, depth)
		case t == "array" && len(s.Items) > 0:
			types[i], ok = shortSchema(s.Items, depth-1)
			types[i] = "[" + types[i] + "]"
		case t == "string" && s.Format != "":
			types[i] = s.Format
		}
		if !ok {
			return "", false
		}
	}
	return strings.Join(types, "|"), true
}

// schemaTypes are the types that a schema allows.
func schemaTypes(raw json.RawMessage) ([]string, bool) {
	var one string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		return []string{one}, true
	}
	var several []string
	if json.Unmarshal(raw, &several) == nil && len(several) > 0 {
		return several, true
	}
	return nil, false
}

func shortObject(s *schemaOf, depth int) (string, bool) {
	var members []string
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		text, ok := shortSchema(s.Properties[name], depth-1)
		if !ok {
			return "", false
		}
		if s.Required != nil && !slices.Contains(s.Required, name) {
			name += "?"
		}
		members = append(members, name+": "+text)
	}
	switch rest := string(s.Additional); rest {
	case "", "true", "false":
	default:
		text, ok := shortSchema(s.Additional, depth-1)
		if !ok {
			return "", false
		}
		members = append(members, "…: "+text)
	}
	return "{" + strings.Join(members, ", ") + "}", true
}

package jsonplan

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// everyTag is a struct with every tag.
type everyTag struct {
	_        struct{}          `doc:"All tags."`
	Name     string            `json:"name" doc:"Who \"it\" is." minLength:"2" maxLength:"9" pattern:"^[a-z]+$" example:"ada"`
	Mail     *string           `json:"mail" doc:"Where." format:"email" default:"a@b.example" deprecated:"true"`
	Size     string            `json:"size" enum:"s,m,l"`
	Grades   []int8            `json:"grades" enum:"1,-2" minItems:"1" maxItems:"3" uniqueItems:"true" example:"[1]"`
	Share    float64           `json:"share" exclusiveMinimum:"0" exclusiveMaximum:"1.5" multipleOf:"0.25"`
	Count    uint16            `json:"count" minimum:"3" maximum:"65535"`
	Positive uint16            `json:"positive" maximum:"7"`
	Labels   map[string]string `json:"labels" minProperties:"1" maxProperties:"2" maxLength:"3"`
	Pair     [2]int            `json:"pair" minimum:"5"`
	Wait     time.Duration     `json:"wait" doc:"How long." minimum:"0"`
	From     netip.Addr        `json:"from" format:"ipv4"`
}

const everySchema = `{"type":"object","properties":{` +
	`"name":{"type":"string","description":"Who \"it\" is.","examples":["ada"],"minLength":2,"maxLength":9,"pattern":"^[a-z]+$"},` +
	`"mail":{"anyOf":[{"type":"string","format":"email"},{"type":"null"}],"description":"Where.","deprecated":true,` +
	`"default":"a@b.example"},` +
	`"size":{"type":"string","enum":["s","m","l"]},` +
	`"grades":{"type":["array","null"],"items":{"type":"integer","enum":[1,-2]},"examples":[[1]],"minItems":1,"maxItems":3,` +
	`"uniqueItems":true},` +
	`"share":{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1.5,"multipleOf":0.25},` +
	`"count":{"type":"integer","minimum":3,"maximum":65535},` +
	`"positive":{"type":"integer","minimum":0,"maximum":7},` +
	`"labels":{"type":["object","null"],"additionalProperties":{"type":"string","maxLength":3},"minProperties":1,` +
	`"maxProperties":2},` +
	`"pair":{"type":"array","items":{"type":"integer","minimum":5},"minItems":2,"maxItems":2},` +
	`"wait":{"type":"integer","description":"How long. (in nanoseconds)","minimum":0},` +
	`"from":{"type":"string","format":"ipv4"}},"description":"All tags."}`

func TestTagsAreInTheSchema(t *testing.T) {
	p := plan[everyTag](t)
	if got := p.Schema(); got != everySchema {
		t.Errorf("got  %s\nwant %s", got, everySchema)
	}
	if in := p.InputSchema(); !json.Valid([]byte(in)) || !strings.Contains(in, `"required":["name","size",`) {
		t.Errorf("the input schema is %s", in)
	}
	untagged := plan[struct{ N, M int64 }](t)
	if tagged := plan[struct {
		N, M int64 `minimum:"1" doc:"x"`
	}](t); tagged.Fingerprint() != untagged.Fingerprint() {
		t.Error("tags change the fingerprint of a state")
	}
}

// Tags are read as package reflect reads them.
func TestWordsInTags(t *testing.T) {
	for _, tag := range []reflect.StructTag{``, `json:"a"`, `doc:"x" json:"doc:\"y\"" example:"\"\\\t"`, `doc:"x`, `doc: "x"`,
		`  doc:"x"  enum:"a"`, `json:"a"doc:"x"`, `doc:"x" doc:"y"`, `:"x" doc:"y"`, `doc`, `doc:`, `doc:"\`, `doc:"\q" enum:"b"`,
		`json doc:"x"`, `minimum:"" maximum:"1"`} {
		var texts [len(words)]string
		found := wordsIn(tag, &texts)
		for i := range words {
			want, ok := tag.Lookup(words[i].tag)
			if ok != (found>>i&1 == 1) || texts[i] != want {
				t.Errorf("%s: %s is %q (%b), want %q, %v", tag, words[i].tag, texts[i], found, want, ok)
			}
		}
	}
}

type chain struct {
	Next *chain `json:"next" doc:"The next one."`
	Self []chain
}

type textual struct{ s string }

func (x textual) MarshalText() ([]byte, error)  { return []byte(x.s), nil }
func (x *textual) UnmarshalText(b []byte) error { x.s = string(b); return nil }

type UUID [16]byte

func (x UUID) MarshalText() ([]byte, error)  { return []byte("u"), nil }
func (x *UUID) UnmarshalText(b []byte) error { return nil }

func TestFormatsOfTypes(t *testing.T) {
	for _, c := range []struct {
		p    *Plan
		want string
	}{
		{plan[time.Time](t), `{"type":"string","format":"date-time"}`},
		{plan[*time.Time](t), `{"anyOf":[{"type":"string","format":"date-time"},{"type":"null"}]}`},
		{plan[time.Duration](t), `{"type":"integer","description":"in nanoseconds"}`},
		{plan[[]byte](t), `{"type":["string","null"],"contentEncoding":"base64"}`},
		{plan[netip.Addr](t), `{"type":"string","format":"ip"}`},
		{plan[netip.AddrPort](t), `{"type":"string","format":"ip-port"}`},
		{plan[netip.Prefix](t), `{"type":"string","format":"cidr"}`},
		{plan[UUID](t), `{"type":"string","format":"uuid"}`},
		{plan[textual](t), `{"type":"string"}`},
		{plan[struct {
			X textual `format:"isbn"`
		}](t), `{"type":"object","properties":{"X":{"type":"string","format":"isbn"}}}`},
		// What a tag says of one member does not hold for all uses of its type.
		{plan[struct {
			Root chain `doc:"The first one."`
		}](t), `{"type":"object","properties":{"Root":{"allOf":[{"$anchor":"t1","type":"object","properties":{` +
			`"next":{"anyOf":[{"$ref":"#t1"},{"type":"null"}],"description":"The next one."},` +
			`"Self":{"type":["array","null"],"items":{"$ref":"#t1"}}}}],"description":"The first one."}}}`},
	} {
		if got := c.p.Schema(); got != c.want {
			t.Errorf("%v:\n got  %s\n want %s", c.p.typ, got, c.want)
		}
	}
}

type loop []loop

type tagged struct {
	A int `json:"a"`
}

func TestWrongTagsAreRefused(t *testing.T) {
	for _, c := range []struct {
		zero any
		want string // in the error
	}{
		{struct {
			X string `minimum:"1"`
		}{}, `.X: the tag minimum:"1" is for numbers, and string is none of these`},
		{struct {
			X bool `enum:"true"`
		}{}, `is for text and numbers`},
		{struct {
			X tagged `minLength:"1"`
		}{}, `is for text`},
		{struct {
			X []byte `maxLength:"1"`
		}{}, `is for text`},
		{struct {
			X [2]int `minItems:"1"`
		}{}, `is for slices`},
		{struct {
			X []int `pattern:"a"`
		}{}, `is for text`},
		{struct {
			X int `minimum:"one"`
		}{}, `has one, which is not a value of int`},
		{struct {
			X int8 `maximum:"128"`
		}{}, `which is not a value of int8`},
		{struct {
			X int `minimum:"1.5"`
		}{}, `which is not a value of int`},
		{struct {
			X int `minimum:" 1"`
		}{}, `is not a number`},
		{struct {
			X uint `enum:"1,-1"`
		}{}, `has -1, which is not a value of uint`},
		{struct {
			X string `enum:"a, b"`
		}{}, `space around it`},
		{struct {
			X string `enum:""`
		}{}, `a value that is empty`},
		{struct {
			X string `enum:"a,b,a"`
		}{}, `has the value a twice`},
		{struct {
			X int `minimum:"2" maximum:"1"`
		}{}, `the tag minimum:"2" is above maximum:"1"`},
		{struct {
			X string `minLength:"2" maxLength:"1"`
		}{}, `is above maxLength:"1"`},
		{struct {
			X string `minLength:"-1"`
		}{}, `is not a whole number`},
		{struct {
			X float64 `multipleOf:"0"`
		}{}, `is not a number above 0`},
		{struct {
			X string `pattern:"("`
		}{}, `is not a regular expression`},
		{struct {
			X string `format:"e mail"`
		}{}, `is not the name of a format`},
		{struct {
			X time.Time `format:"date"`
		}{}, `is on a time`},
		{struct {
			X string `doc:" "`
		}{}, `has no text`},
		{struct {
			X []int `uniqueItems:"yes"`
		}{}, `can only be "true"`},
		{struct {
			X int `default:"1"`
		}{}, `is on a required member`},
		{struct {
			X int `json:",omitempty" default:"x"`
		}{}, `the tag default has x, which the field cannot have`},
		{struct {
			X int `example:"5" maximum:"4"`
		}{}, `the tag example has 5, which the field cannot have: the data is 5, more than 4`},
		{struct {
			X string `example:"abc" enum:"a,b"`
		}{}, `which the field cannot have`},
		{struct {
			X tagged `example:"{\"b\":1}"`
		}{}, `which the field cannot have`},
		{struct {
			X loop `minItems:"1"`
		}{}, `consists of itself`},
		{struct {
			tagged `doc:"x"`
		}{}, `is embedded`},
		{struct {
			_ int `minimum:"1"`
		}{}, `is on a field that is not in JSON`},
	} {
		_, err := new(Maker).Make(reflect.TypeOf(c.zero))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%T: %v\n want %s", c.zero, err, c.want)
		}
	}
}

// Fits knows each keyword that plans write.
func TestFits(t *testing.T) {
	schema := plan[everyTag](t).InputSchema()
	good := map[string]any{"name": "ada", "mail": nil, "size": "m", "grades": []any{1}, "share": 0.25, "count": 3,
		"positive": 7, "labels": map[string]any{"a": "abc"}, "pair": []any{5, 6}, "wait": 0, "from": "192.0.2.1"}
	check := func(v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return Fits(schema, text)
	}
	if err := check(good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		bad  any
		want string
	}{
		{"name", "a", "/name has 1 characters, less than 2"},
		{"name", "abcdefghij", "more than 9"},
		{"name", "Ada", "does not match"},
		{"name", 1, "/name is of type integer, not [string]"},
		{"name", nil, "is of type null"},
		{"mail", 1, "/mail is of type integer"},
		{"size", "xl", "/size is none of"},
		{"grades", []any{}, "less than 1"},
		{"grades", []any{1, 2}, "/grades/1 is none of"},
		{"grades", []any{1, 1}, "twice"},
		{"grades", []any{1, -2, 1, -2}, "more than 3"},
		{"share", 0, "not above 0"},
		{"share", 1.5, "not below 1.5"},
		{"share", 0.3, "not a multiple of 0.25"},
		{"count", 2, "less than 3"},
		{"count", 3.5, "is of type number"},
		{"positive", -1, "less than 0"},
		{"positive", 8, "more than 7"},
		{"labels", map[string]any{}, "less than 1"},
		{"labels", map[string]any{"a": "abcd"}, "/labels/a has 4"},
		{"pair", []any{5, 4}, "/pair/1 is 4"},
		{"pair", []any{5}, "less than 2"},
		{"other", 1, "/other is unknown"},
	} {
		bad := map[string]any{c.name: c.bad}
		for name, v := range good {
			if name != c.name {
				bad[name] = v
			}
		}
		if err := check(bad); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: %v, want %s", c.name, c.bad, err, c.want)
		}
	}
	delete(good, "name")
	if err := check(good); err == nil || err.Error() != "/name is missing" {
		t.Error(err)
	}
	recursive := plan[chain](t).Schema()
	for in, fits := range map[string]bool{`{"next":{"next":{"next":null,"Self":[]}}}`: true, `{"next":{"next":1}}`: false,
		`{"Self":[{"Self":[{"next":1}]}]}`: false, `{`: false, `{} {}`: false} {
		if err := Fits(recursive, []byte(in)); (err == nil) != fits {
			t.Errorf("%s: %v", in, err)
		}
	}
}

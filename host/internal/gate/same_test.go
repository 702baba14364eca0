package gate

import "testing"

func TestSameData(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{``, ``, true},
		{``, `null`, false},
		{`{"a":1,"b":[1,2]}`, ` { "b" : [1, 2], "a" : 1 } `, true},
		{`{"a":1}`, `{"a":1,"b":null}`, false},
		{`{"a":null}`, `{"b":null}`, false},
		{`[1,2]`, `[2,1]`, false},
		{`[1]`, `[1,1]`, false},
		{`{}`, `[]`, false},
		{`"a"`, `"\u0061"`, true},
		{`"1"`, `1`, false},
		{`true`, `true `, true},
		{`true`, `false`, false},
		{`1`, `1.0`, true},
		{`1e2`, `100`, true},
		{`0`, `-0`, true},
		{`9007199254740993`, `9007199254740992`, false},
		{`1e400`, `1e400`, true},
		{`1e400`, `1e401`, false},
		{`1 2`, `1  2`, false},
		{"\x00\x01", "\x00\x01", true},
		{"\x00\x01", "\x00\x02", false},
		{`{"a":{"b":[{"c":1}]}}`, `{"a":{"b":[{"c":2}]}}`, false},
	} {
		if got := sameData([]byte(c.a), []byte(c.b)); got != c.same {
			t.Errorf("%q and %q: %v", c.a, c.b, got)
		}
		if got := sameData([]byte(c.b), []byte(c.a)); got != c.same {
			t.Errorf("%q and %q: %v", c.b, c.a, got)
		}
	}
}

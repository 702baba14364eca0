package gate

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// sameData reports whether data is the same: as JSON values, or byte by byte if one is not JSON. Members of
// objects have no order, and numbers no form: 1.0 is 1.
func sameData(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, ok := decode(a)
	if !ok {
		return false
	}
	y, ok := decode(b)
	return ok && sameValue(x, y)
}

func decode(data []byte) (value any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if d.Decode(&value) != nil {
		return nil, false
	}
	return value, len(bytes.TrimSpace(data[d.InputOffset():])) == 0
}

// sameValue compares what decode returns. Its depth is that of the JSON text, which the decoder bounds.
func sameValue(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for name, x := range a {
			if y, ok := b[name]; !ok || !sameValue(x, y) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !sameValue(a[i], b[i]) {
				return false
			}
		}
		return true
	case json.Number:
		b, ok := b.(json.Number)
		return ok && sameNumber(a.String(), b.String())
	}
	return a == b
}

// sameNumber compares two numbers. Integers are compared exactly, others as floating-point numbers.
func sameNumber(a, b string) bool {
	if a == b {
		return true
	}
	if integer(a) && integer(b) { // each integer has one form, but for -0
		return trimZero(a) == trimZero(b)
	}
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && x == y
}

func integer(s string) bool {
	for _, c := range s {
		if c == '.' || c == 'e' || c == 'E' {
			return false
		}
	}
	return true
}

func trimZero(s string) string {
	if s == "-0" {
		return "0"
	}
	return s
}

package jsonplan

import "strconv"

// Schema is the JSON Schema (draft 2020-12) of what the plan writes. It describes
// recursive types by reference.
func (p *Plan) Schema() string {
	s := &schema{open: map[*Plan]int{}}
	s.plan(p)
	return string(s.b)
}

// schema writes a schema. A struct type that refers to itself gets an anchor,
// which its inner uses refer to.
type schema struct {
	b    []byte
	open map[*Plan]int // structs being written, with their numbers
	used map[int]bool  // of them, those that are referred to
}

func (s *schema) raw(text string) { s.b = append(s.b, text...) }
func (s *schema) int(n int)       { s.b = strconv.AppendInt(s.b, int64(n), 10) }
func (s *schema) plan(p *Plan)    { p.schema(s) }

// object writes a struct's schema by body, which starts with an opening brace.
func (s *schema) object(p *Plan, body func()) {
	if n, ok := s.open[p]; ok {
		if s.used == nil {
			s.used = map[int]bool{}
		}
		s.used[n] = true
		s.raw(`{"$ref":"#t` + strconv.Itoa(n) + `"}`)
		return
	}
	n := len(s.open)
	s.open[p] = n
	start := len(s.b)
	body()
	delete(s.open, p)
	if s.used[n] {
		delete(s.used, n)
		tail := string(s.b[start+1:])
		s.b = s.b[:start]
		s.raw(`{"$anchor":"t` + strconv.Itoa(n) + `",` + tail)
	}
}

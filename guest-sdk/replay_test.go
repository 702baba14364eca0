package guest_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

type ledger struct {
	Kept [][]string     `json:"kept"`
	Sum  int            `json:"sum"`
	Last *int           `json:"last"`
	Tags map[string]int `json:"tags"`
}

type noted struct {
	Lines []string       `json:"lines"`
	By    int            `json:"by"`
	Ref   *int           `json:"ref"`
	Tags  map[string]int `json:"tags"`
}

func (e noted) Apply(s *ledger) {
	s.Kept = append(s.Kept, e.Lines)
	s.Sum += e.By
	if e.Ref != nil {
		s.Last = e.Ref
	}
	if e.Tags != nil {
		s.Tags = e.Tags
	}
}

// Replayed events are decoded into one place. No event has anything of the one before, and what
// a state keeps of an event is not changed by the next one, even if that is refused.
func TestReplayedEventsAreApart(t *testing.T) {
	s := guest.New[ledger]("ledger").Events(noted{})
	request := abi.AppendOpen(nil, 0, 0, "k", nil)
	for i, body := range []string{
		`{"lines":["a","b"],"by":1,"ref":7,"tags":{"x":1}}`, `{"lines":["c"]}`, `{}`, `{"lines":["d"],"by":2,"ref":8}`,
	} {
		request = abi.AppendApply(request, 0, 0, uint64(i+1), 0, []byte(body), nil)
	}
	if got := say(t, s, request); got != "" {
		t.Fatal(got)
	}
	want := `Snapshot {"kept":[["a","b"],["c"],null,["d"]],"sum":3,"last":8,"tags":{"x":1}}`
	if got := say(t, s, abi.AppendSnapshotRequest(nil, 0)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := say(t, s, abi.AppendApply(nil, 0, 0, 5, 0, []byte(`{"lines":["e"],"ref":9,"tags":{"y":2},"by":"x"}`),
		nil)); got == "" {
		t.Error("a body that does not fit is taken")
	}
}

// fragile has events that can be applied only in some states.
type fragile struct{ N int }

type touched struct{ N int }

func (e touched) Apply(s *fragile) {
	s.N += 10 / e.N
	applied++
}

var applied int

// A replay ends at the first event that cannot be applied. The fault names entity, version and
// event. Later frames are neither run nor answered until the slot is opened again.
func TestReplayingEndsAtTheFirstFault(t *testing.T) {
	s := guest.New[fragile]("fragile").Events(touched{})
	guest.Query(s, "n", func(v *guest.View[fragile], _ struct{}) (int, error) { return v.State().N, nil })
	const open = `entity "a\u202eb", version `
	event := func(request []byte, typ uint16, version uint64, body string) []byte {
		return abi.AppendApply(request, 3, typ, version, 0, []byte(body), nil)
	}
	for _, c := range []struct {
		name     string
		snapshot string
		broken   func(request []byte) []byte
		want     string
		runs     int
	}{
		{"a body of another shape", "", func(r []byte) []byte { return event(r, 0, 2, `{"N":"x"}`) },
			"bad_event: " + open + "2, event touched: json: N: value has another type than its field", 1},
		{"a panic", "", func(r []byte) []byte { return event(r, 0, 2, `{}`) },
			"panic: " + open + "2, event touched: runtime error: integer divide by zero", 1},
		{"an unknown type", "",
			func(r []byte) []byte { return event(r, 9, 2, `{}`) }, "unknown_type: " + open + "2: there is no event " +
				"type 9", 1},
		{"a snapshot of another shape", `{"N":"x"}`, func(r []byte) []byte { return r },
			"bad_snapshot: " + open + "7, snapshot: json: N: value has another type than its field", 0},
	} {
		applied = 0
		version, snapshot := uint64(0), []byte(nil)
		if c.snapshot != "" {
			version, snapshot = 7, []byte(c.snapshot)
		}
		request := event(abi.AppendOpen(nil, 3, version, "a\u202eb", snapshot), 0, 1, `{"N":1}`)
		request = event(event(c.broken(request), 0, 3, `{"N":1}`), 0, 4, `{"N":0}`)
		request = abi.AppendApply(abi.AppendOpen(request, 4, 0, "other", nil), 4, 0, 1, 0, []byte(`{"N":1}`), nil)
		r, rest, err := abi.DecodeResponse(exchange(s, request))
		if err != nil || len(rest) > 0 {
			t.Fatalf("%s: %v, %d more bytes", c.name, err, len(rest))
		}
		x, err := abi.DecodeRefusal(&r)
		if got := string(x.Code) + ": " + string(x.Message); err != nil || r.Kind != abi.RespFault || r.Slot != 3 ||
			got != c.want {
			t.Errorf("%s: got  %s\nwant %s", c.name, got, c.want)
		}
		if applied != c.runs+1 { // one event is of the other entity
			t.Errorf("%s: %d events were applied", c.name, applied)
		}
		// It is the same in later requests, for all kinds of frames.
		if got := say(t, s, event(nil, 0, 5, `{"N":1}`)); got != "" || applied != c.runs+1 {
			t.Errorf("%s: then %s, %d events were applied", c.name, got, applied)
		}
		for _, request := range [][]byte{abi.AppendSnapshotRequest(nil, 3), abi.AppendQuery(nil, 3, 0, 0, 0, nil)} {
			if got := say(t, s, request); got != "Fault no_entity" {
				t.Errorf("%s: then %s", c.name, got)
			}
		}
		if got := say(t, s, abi.AppendQuery(nil, 4, 0, 0, 0, nil)); got != "Reply 10" {
			t.Errorf("%s: the other entity: %s", c.name, got)
		}
		say(t, s, event(abi.AppendOpen(nil, 3, 0, "again", nil), 0, 1, `{"N":2}`))
		if got := say(t, s, abi.AppendQuery(nil, 3, 0, 0, 0, nil)); got != "Reply 5" {
			t.Errorf("%s: opened again: %s", c.name, got)
		}
	}
}

// A snapshot is a complete state of this service, or it is refused.
func TestSnapshotsAreWhole(t *testing.T) {
	type state struct {
		Total int            `json:"total"`
		Note  string         `json:"note,omitempty"`
		Last  *int           `json:"last"`
		Tags  map[string]int `json:"tags"`
		Deep  struct {
			A int `json:"a"`
			B int `json:"b,omitzero"`
		} `json:"deep"`
	}
	s := guest.New[state]("whole")
	const others = `"last":null,"tags":null,"deep":{"a":1}`
	for snapshot, want := range map[string]string{
		`{"total":1,` + others + `}`:                           "",
		`{` + others + `,"total":1,"note":"n"}`:                "",
		`{"sum":1,` + others + `}`:                             "sum: there is no such member",
		`{"total":1,"remark":"n",` + others + `}`:              "remark: there is no such member",
		`{"Total":1,` + others + `}`:                           "Total: there is no such member",
		`{` + others + `}`:                                     "total: the member is missing",
		`{"total":1,"total":2,` + others + `}`:                 "total: the member appears twice",
		`{"total":null,` + others + `}`:                        "total: value has another type than its field",
		`{"total":1,"tags":null,"deep":{"a":1}}`:               "last: the member is missing",
		`{"total":1,"last":null,"tags":null,"deep":{"b":1}}`:   "deep.a: the member is missing",
		`{"total":1,"last":null,"tags":{"a":1,"a":1},"deep":{`: "tags.a: the member appears twice",
		`{"total":1,"note":"` + "\xff" + `",` + others + `}`:   "note: text is not UTF-8",
		`{}`:   "total: the member is missing",
		`null`: "value has another type than its field",
		``:     "malformed",
	} {
		out := exchange(s, abi.AppendOpen(nil, 0, 7, "k", append([]byte{}, snapshot...)))
		if want == "" {
			if len(out) > 0 {
				t.Errorf("%s is refused", snapshot)
			}
			continue
		}
		want = `bad_snapshot: entity "k", version 7, snapshot: json: ` + want
		r, _, err := abi.DecodeResponse(out)
		if err != nil {
			t.Errorf("%s: %v", snapshot, err)
			continue
		}
		if x, _ := abi.DecodeRefusal(&r); string(x.Code)+": "+string(x.Message) != want {
			t.Errorf("%s: got  %s: %s\nwant %s", snapshot, x.Code, x.Message, want)
		}
	}
}

package guest_test

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// memory keeps each event that was applied.
type memory struct {
	Odd []odd
}

// odd is an event with values that JSON cannot express, or expresses differently.
type odd struct {
	Text   string
	Texts  []string
	Map    map[string][]int
	Bytes  []byte
	Ref    *int
	Time   time.Time
	Zero   float64   `json:",omitempty"`
	Left   int       `json:"-"`
	Stamp  stamp     `json:",omitzero"`
	Cut    shortened `json:",omitempty"`
	Hidden struct {
		N int `json:"-"`
	}
}

func (e odd) Apply(m *memory) { m.Odd = append(m.Odd, e) }

// stamp is left out although it is not zero.
type stamp struct{ N int }

func (s stamp) IsZero() bool { return s.N < 10 }

// shortened has a text form that loses part of it.
type shortened struct{ S string }

func (s shortened) MarshalText() ([]byte, error) { return []byte(s.S[:min(2, len(s.S))]), nil }
func (s *shortened) UnmarshalText(b []byte) error {
	s.S = string(b)
	return nil
}

// flat is an event whose encoding is exact, unless its text is not UTF-8.
type flat struct {
	Text string
	N    int
}

func (e flat) Apply(m *memory) { m.Odd = append(m.Odd, odd{Text: e.Text, Left: e.N}) }

// changed changes memory that earlier events have given the state.
type changed struct{ N int }

func (e changed) Apply(m *memory) {
	for i := range m.Odd {
		o := &m.Odd[i]
		for j := range o.Texts {
			o.Texts[j] = "changed"
		}
		for j := range o.Bytes {
			o.Bytes[j] = byte(e.N)
		}
		for k := range o.Map {
			o.Map[k] = append(o.Map[k], e.N)
		}
		if o.Ref != nil {
			*o.Ref += e.N
		}
	}
}

// The state after an event is the state after its replay, whatever value the event has, and
// whatever the handler does with it afterwards.
func TestWhatIsEmittedIsWhatIsReplayed(t *testing.T) {
	n := 1
	shared := odd{Texts: []string{"a", "b"}, Map: map[string][]int{"k": {1}}, Bytes: []byte{1, 2}, Ref: &n}
	for name, emit := range map[string]func(*guest.Tx[memory]){
		"half a rune":            func(tx *guest.Tx[memory]) { tx.Emit(odd{Text: "cafés"[:4]}) },
		"half a rune in a slice": func(tx *guest.Tx[memory]) { tx.Emit(odd{Texts: []string{"\xff"}}) },
		"half a rune of a flat":  func(tx *guest.Tx[memory]) { tx.Emit(flat{Text: "\xe2\x82"}) },
		"an exact flat":          func(tx *guest.Tx[memory]) { tx.Emit(flat{Text: "é\ufffd\\ufffd", N: 2}) },
		"a zone with seconds": func(tx *guest.Tx[memory]) {
			tx.Emit(odd{Time: time.Unix(1e9, 0).In(time.FixedZone("", 3601))})
		},
		"a named zone": func(tx *guest.Tx[memory]) {
			tx.Emit(odd{Time: time.Unix(1e9, 0).In(time.FixedZone("CET", 3600))})
		},
		"a monotonic clock":       func(tx *guest.Tx[memory]) { tx.Emit(odd{Time: time.Now()}) },
		"minus zero left out":     func(tx *guest.Tx[memory]) { tx.Emit(odd{Zero: math.Copysign(0, -1)}) },
		"a field left out":        func(tx *guest.Tx[memory]) { tx.Emit(odd{Left: 3}) },
		"an inner field left out": func(tx *guest.Tx[memory]) { o := odd{}; o.Hidden.N = 3; tx.Emit(o) },
		"its own zero":            func(tx *guest.Tx[memory]) { tx.Emit(odd{Stamp: stamp{9}}) },
		"its own text":            func(tx *guest.Tx[memory]) { tx.Emit(odd{Cut: shortened{"long"}}) },
		"nil and empty": func(tx *guest.Tx[memory]) {
			tx.Emit(odd{Texts: []string{}, Bytes: []byte{}, Map: map[string][]int{}})
		},
		"with metadata": func(tx *guest.Tx[memory]) {
			tx.EmitWith(odd{Text: "\xff"}, guest.Metadata(nil).AppendPair("a", "b"))
		},
		"what the event refers to": func(tx *guest.Tx[memory]) {
			tx.Emit(shared)
			shared.Texts[0], shared.Bytes[0], shared.Map["new"], n = "x", 9, nil, 99
		},
		"the same event twice": func(tx *guest.Tx[memory]) { tx.Emit(shared); tx.Emit(shared); tx.Emit(changed{5}) },
		"an event of the state's own": func(tx *guest.Tx[memory]) {
			tx.Emit(shared)
			tx.Emit(tx.State().Odd[0])
			tx.Emit(changed{5})
		},
	} {
		s := guest.New[memory]("memory").Events(odd{}, flat{}, changed{})
		var state *memory
		guest.Command(s, "emit", func(tx *guest.Tx[memory], _ struct{}) (struct{}, error) {
			emit(tx)
			return struct{}{},
				nil
		})
		guest.Query(s, "look", func(v *guest.View[memory], _ struct{}) (struct{},
			error) {
			state = v.State()
			return struct{}{}, nil
		})
		exchange(s, abi.AppendOpen(abi.AppendOpen(nil, 0, 0, "k", nil), 1, 0, "k", nil))
		var replay []byte
		for out := append([]byte(nil), exchange(s, command(0, 0, ""))...); len(out) > 0; {
			r, rest, err := abi.DecodeResponse(out)
			if err != nil {
				t.Fatal(err)
			}
			out = rest
			switch r.Kind {
			case abi.RespEvent:
				e, _ := abi.DecodeEvent(&r)
				replay = abi.AppendApply(replay, 1, r.Type, 1, 0, e.Body, nil)
			case abi.RespReply:
			default:
				x, _ := abi.DecodeRefusal(&r)
				t.Errorf("%s: %v %s", name, r.Kind, x.Message)
			}
		}
		if out := say(t, s, replay); out != "" {
			t.Errorf("%s: %s", name, out)
		}
		look := func(slot uint32) *memory {
			exchange(s, abi.AppendQuery(nil, slot, 0, 0, 0, nil))
			return state
		}
		live, replayed := look(0), look(1)
		if len(live.Odd) == 0 || !reflect.DeepEqual(live, replayed) {
			t.Errorf("%s:\n live     %+v\n replayed %+v", name, live, replayed)
		}
	}
}

// An event that has no JSON form, or that cannot be read back, is a fault.
func TestWhatCannotBeEmitted(t *testing.T) {
	for want, emit := range map[string]func(*guest.Tx[memory]){
		"json: Zero: NaN and infinity have no form": func(tx *guest.Tx[memory]) { tx.Emit(odd{Zero: math.NaN()}) },
		"json: Map.\ufffd: text is not UTF-8": func(tx *guest.Tx[memory]) {
			tx.Emit(odd{Map: map[string][]int{"\xff": nil, "\xfe": nil}})
		},
		"json: Time: Time.AppendText": func(tx *guest.Tx[memory]) {
			tx.Emit(odd{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
		},
		"guest: event loose cannot be read as it is written: json: T: so not": func(tx *guest.Tx[memory]) {
			tx.Emit(loose{writeOnly{1}})
		},
	} {
		s := guest.New[memory]("memory").Events(odd{}, loose{})
		guest.Command(s, "emit", func(tx *guest.Tx[memory], _ struct{}) (struct{}, error) {
			emit(tx)
			return struct{}{},
				nil
		})
		exchange(s, abi.AppendOpen(nil, 0, 0, "k", nil))
		r, _, err := abi.DecodeResponse(exchange(s, command(0, 0, "")))
		if err != nil {
			t.Fatal(err)
		}
		x, err := abi.DecodeRefusal(&r)
		if err != nil || r.Kind != abi.RespFault || string(x.Code) != abi.CodePanic ||
			!strings.HasPrefix(string(x.Message), want) {
			t.Errorf("%v %s: %s, %v; want %s", r.Kind, x.Code, x.Message, err, want)
		}
	}
}

type loose struct{ T writeOnly }

func (loose) Apply(*memory) {}

// writeOnly cannot read what it writes.
type writeOnly struct{ N int }

func (writeOnly) MarshalText() ([]byte, error)  { return []byte("x"), nil }
func (*writeOnly) UnmarshalText(b []byte) error { return errSoNot }

var errSoNot = errorString("so not")

type errorString string

func (e errorString) Error() string { return string(e) }

// A state that a snapshot would change has no snapshot; it is replayed.
func TestNoSnapshotThatSaysSomethingElse(t *testing.T) {
	s := guest.New[memory]("memory").Events(cut{})
	exchange(s, abi.AppendOpen(nil, 0, 0, "k", nil))
	for body, want := range map[string]string{
		`{"S":"cafes","N":4}`: `Snapshot {"Odd":[{"Text":"cafe"`,
		`{"S":"cafés","N":4}`: "Fault error",
	} {
		exchange(s, abi.AppendApply(abi.AppendOpen(nil, 0, 0, "k", nil), 0, 0, 1, 0, []byte(body), nil))
		if got := say(t, s, abi.AppendSnapshotRequest(nil, 0)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

// cut cuts a string when it is applied.
type cut struct {
	S string
	N int
}

func (e cut) Apply(m *memory) { m.Odd = append(m.Odd, odd{Text: e.S[:e.N]}) }

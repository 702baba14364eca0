package guest_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// seats is the state of the services in these tests.
type seats struct {
	Held []string `json:"held"`
	Hall string   `json:"hall"`
}

// The event of today, and its two earlier forms.
type (
	held struct {
		Seats []string `json:"seats"`
		Hall  string   `json:"hall"`
	}
	heldV2 struct {
		Seats []string `json:"seats"`
	}
	heldV1 struct {
		Seat string `json:"seat"`
	}
)

func (e held) Apply(s *seats) { s.Held, s.Hall = append(s.Held, e.Seats...), e.Hall }

func toV2(old heldV1) heldV2 {
	if old.Seat == "" {
		panic("there is no seat")
	}
	return heldV2{[]string{old.Seat}}
}

func toHeld(old heldV2) held { return held{old.Seats, "main"} }

// newSeats is a service with a chain of upcasters.
func newSeats() *guest.Service[seats] {
	s := guest.New[seats]("seats")
	guest.Upcast(s, "reserved", toV2, "booked") // the old type of what it gives comes later
	s.Events(held{})
	guest.Upcast(s, "reserved-2", toHeld)
	return s
}

// eventsOf returns the events in a service's manifest.
func eventsOf[S any](t *testing.T, s *guest.Service[S]) []abi.EventType {
	t.Helper()
	r, _, err := abi.DecodeResponse(exchange(s, abi.AppendDescribe(nil)))
	if err != nil {
		t.Fatal(err)
	}
	body, err := abi.DecodeBody(&r)
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Events []struct {
			Name     string
			Aliases  []string
			UpcastTo string `json:"upcast_to"`
			Schema   json.RawMessage
		}
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	var all []abi.EventType
	for _, e := range m.Events {
		all = append(all, abi.EventType{Name: e.Name, Aliases: e.Aliases, UpcastTo: e.UpcastTo,
			Schema: string(e.Schema)})
	}
	return all
}

// refusalOf returns the code and message of the only answer to a request.
func refusalOf[S any](t *testing.T, s *guest.Service[S], request []byte) string {
	t.Helper()
	r, rest, err := abi.DecodeResponse(exchange(s, request))
	if err != nil || len(rest) > 0 {
		t.Fatalf("%v, %d more bytes", err, len(rest))
	}
	x, err := abi.DecodeRefusal(&r)
	if err != nil {
		t.Fatal(err)
	}
	return string(x.Code) + ": " + string(x.Message)
}

func TestTheManifestSaysWhatIsUpcast(t *testing.T) {
	all := eventsOf(t, newSeats())
	if len(all) != 3 || all[0].Name != "reserved" || !slices.Equal(all[0].Aliases, []string{"booked"}) ||
		all[0].UpcastTo != "reserved-2" || all[1].Name != "held" || all[1].UpcastTo != "" ||
		all[2].Name != "reserved-2" || all[2].UpcastTo != "held" || !strings.Contains(all[0].Schema, `"seat"`) {
		t.Errorf("got %+v", all)
	}
}

func TestUpcast(t *testing.T) {
	s := newSeats()
	request := abi.AppendOpen(nil, 0, 0, "k", nil)
	for i, e := range []struct {
		typ  uint16
		body string
	}{{0, `{"seat":"A1"}`}, {2, `{"seats":["A2","A3"]}`}, {1, `{"seats":["A4"],"hall":"side"}`}, {0, `{"seat":"A5","old":1}`}} {
		request = abi.AppendApply(request, 0, e.typ, uint64(i+1), 0, []byte(e.body), nil)
	}
	if got := say(t, s, request); got != "" {
		t.Fatal(got)
	}
	if got, want := say(t, s, abi.AppendSnapshotRequest(nil, 0)), `{"held":["A1","A2","A3","A4","A5"],"hall":"main"}`; !strings.
		Contains(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	// The fault names the stored event.
	got := refusalOf(t, s, abi.AppendApply(nil, 0, 0, 5, 0, []byte(`{}`), nil))
	if !strings.Contains(got, `entity "k", version 5, event reserved: there is no seat`) {
		t.Errorf("got %s", got)
	}
	got = refusalOf(t, s, slices.Concat(abi.AppendOpen(nil, 0, 0, "k", nil),
		abi.AppendApply(nil, 0, 0, 1, 0, []byte(`{"seat":7}`), nil)))
	if !strings.Contains(got, abi.CodeBadEvent) || !strings.Contains(got, "event reserved: ") {
		t.Errorf("got %s", got)
	}
}

// A chain leaves nothing of one event to the next, although its places are used for each event.
func TestUpcastEventsShareNothing(t *testing.T) {
	s := newSeats()
	request := abi.AppendOpen(nil, 0, 0, "k", nil)
	for i, body := range []string{`{"seats":["A1","A2","A3"]}`, `{}`, `{"seats":["B1"]}`} {
		request = abi.AppendApply(request, 0, 2, uint64(i+1), 0, []byte(body), nil)
	}
	if got := say(t, s, request); got != "" {
		t.Fatal(got)
	}
	if got := say(t, s, abi.AppendSnapshotRequest(nil, 0)); !strings.Contains(got, `["A1","A2","A3","B1"]`) {
		t.Errorf("got %s", got)
	}
}

// retired has Apply, and is an old type all the same.
type retired struct{}

func (retired) Apply(*seats) {}

func TestAnOldTypeIsNotEmitted(t *testing.T) {
	s := guest.New[seats]("seats").Events(held{})
	guest.Upcast(s, "applied", func(retired) held { return held{} })
	guest.Command(s, "emit", func(tx *guest.Tx[seats], c struct{}) (struct{}, error) {
		tx.Emit(retired{})
		return c, nil
	})
	exchange(s, abi.AppendOpen(nil, 0, 0, "k", nil))
	got := refusalOf(t, s, command(0, 0, `{}`))
	if !strings.Contains(got, "is an old type, which an upcaster takes; emit the type that it gives") {
		t.Errorf("got %s", got)
	}
}

func TestUpcastRefuses(t *testing.T) {
	base := func() *guest.Service[seats] { return guest.New[seats]("seats").Events(held{}) }
	type third struct{ N int }
	for name, c := range map[string]struct {
		define func(s *guest.Service[seats])
		want   string
	}{
		"a name twice": {func(s *guest.Service[seats]) { guest.Upcast(s, "held", toHeld) },
			`event "held" is registered twice`},
		"an alias twice": {func(s *guest.Service[seats]) { guest.Upcast(s, "reserved", toHeld, "booked", "booked") },
			`event "booked" is registered twice`},
		"a type twice": {func(s *guest.Service[seats]) {
			guest.Upcast(s, "a", toHeld)
			guest.Upcast(s, "b", toHeld)
		}, `event type guest_test.heldV2 is registered twice: an upcaster takes it`},
		"an event": {func(s *guest.Service[seats]) {
			guest.Upcast(s, "a", func(held) heldV2 { return heldV2{} })
		}, `event type guest_test.held is registered twice`},
		"an event later": {func(s *guest.Service[seats]) {
			guest.Upcast(s, "a", func(retired) held { return held{} })
			s.Events(retired{})
		}, `event type guest_test.retired is registered twice`},
		"not a struct": {func(s *guest.Service[seats]) {
			guest.Upcast(s, "a", func(int) held { return held{} })
		}, `must take a struct, not int`},
		"what is lost": {func(s *guest.Service[seats]) {
			guest.Upcast(s, "a", func(struct{ n int }) held { return held{} })
		}, `is not exported`},
		"itself": {func(s *guest.Service[seats]) {
			guest.Upcast(s, "a", func(old heldV1) heldV1 { return old })
		}, `gives what it takes, guest_test.heldV1`},
		"no function": {func(s *guest.Service[seats]) {
			guest.Upcast[seats, heldV1, held](s, "a", nil)
		}, `has no function`},
		"nowhere": {func(s *guest.Service[seats]) { guest.Upcast(s, "a", toV2) },
			`the upcaster of event "a" gives guest_test.heldV2, which is neither registered with Events nor`},
		"a circle": {func(s *guest.Service[seats]) {
			guest.Upcast(s, "a", toV2)
			guest.Upcast(s, "b", func(heldV2) third { return third{} })
			guest.Upcast(s, "c", func(third) heldV1 { return heldV1{} })
		}, `upcasters lead round in a circle: "a" to "b" to "c" to "a"`},
		"a way into a circle": {func(s *guest.Service[seats]) {
			guest.Upcast(s, "a", toV2)
			guest.Upcast(s, "b", func(heldV2) third { return third{} })
			guest.Upcast(s, "c", func(third) heldV2 { return heldV2{} })
		}, `upcasters lead round in a circle: "a" to "b" to "c" to "b"`},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				text, _ := recover().(string)
				if !strings.Contains(text, c.want) || !strings.HasPrefix(text, "guest: ") {
					t.Errorf("got %q, want %q", text, c.want)
				}
			}()
			s := base()
			c.define(s)
			exchange(s, abi.AppendDescribe(nil))
			t.Error("the service starts")
		})
	}
}

package guest_test

import (
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// The state of seats, and its two earlier forms.
type (
	seatsV2 struct {
		List []string `json:"list"`
	}
	seatsV1 struct {
		Text string   `json:"text"`
		More []string `json:"more,omitempty"`
	}
)

func seatsToV2(old seatsV1) seatsV2 {
	if old.Text == "" {
		panic("there is no text")
	}
	return seatsV2{append(strings.Fields(old.Text), old.More...)}
}

func toSeats(old seatsV2) seats { return seats{Held: old.List, Hall: "old"} }

// restored opens an entity from a snapshot of an earlier schema, and returns its snapshot or the refusal.
func restored(t *testing.T, s *guest.Service[seats], schema uint16, snapshot string) string {
	t.Helper()
	request := abi.AppendOpenEarlier(nil, 0, 7, "k", []byte(snapshot), schema)
	if len(exchange(s, request)) > 0 {
		return refusalOf(t, s, request)
	}
	return say(t, s, abi.AppendSnapshotRequest(nil, 0))
}

func TestUpcastState(t *testing.T) {
	s := newSeats()
	guest.UpcastState(s, seatsToV2, 11, 12) // the old type of what it gives comes later
	guest.UpcastState(s, toSeats, 9)
	for _, c := range []struct {
		schema         uint16
		snapshot, want string
	}{
		{0, `{"text":"A1 A2"}`, `{"held":["A1","A2"],"hall":"old"}`},
		{1, `{"text":"A3"}`, `{"held":["A3"],"hall":"old"}`},
		{2, `{"list":["A4"]}`, `{"held":["A4"],"hall":"old"}`},
		{2, `{"list":null}`, `{"held":null,"hall":"old"}`},
		{0, `{"text":"","more":["A9"]}`, `panic: entity "k", version 7, snapshot: there is no text`},
		{0, `{"text":"A5"}`, `{"held":["A5"],"hall":"old"}`},
		{0, `{}`, `bad_snapshot: entity "k", version 7, snapshot: `},
		{0, `{"text":"A1","other":1}`, `bad_snapshot: entity "k", version 7, snapshot: `},
		{2, `{"text":"A1"}`, `bad_snapshot: entity "k", version 7, snapshot: `},
		{3, `{"text":"A1"}`, `bad_snapshot: entity "k", version 7, snapshot: there is no earlier state schema 3`},
	} {
		if got := restored(t, s, c.schema, c.snapshot); !strings.Contains(got, c.want) {
			t.Errorf("%d %s: got %s, want %s", c.schema, c.snapshot, got, c.want)
		}
	}
	// Without an earlier schema, the flag is one of a later version.
	if got := restored(t, newSeats(), 3, `{"held":["A1"],"hall":"x"}`); !strings.Contains(got, `"hall":"x"`) {
		t.Errorf("got %s", got)
	}
}

// States share no memory, although the place of an old state is used for each snapshot.
func TestUpcastStatesShareNothing(t *testing.T) {
	s := newSeats()
	guest.UpcastState(s, toSeats, 9)
	first := abi.AppendOpenEarlier(nil, 0, 1, "a", []byte(`{"list":["A1","A2"]}`), 0)
	if got := say(t, s, abi.AppendOpenEarlier(first, 1, 1, "b", []byte(`{"list":["B1","B2"]}`), 0)); got != "" {
		t.Fatal(got)
	}
	if got := say(t, s, abi.AppendSnapshotRequest(nil, 0)); !strings.Contains(got, `["A1","A2"]`) {
		t.Errorf("got %s", got)
	}
}

// Without a number, the schema is the one that the old state had by itself.
func TestUpcastStateKnowsTheSchema(t *testing.T) {
	schemaOf := func(text string) string {
		_, after, _ := strings.Cut(text, `"state_schema":`)
		before, _, _ := strings.Cut(after, ",")
		return before
	}
	type none struct{}
	old := schemaOf(say(t, guest.New[seatsV1]("seats"), abi.AppendDescribe(nil)))
	s := guest.New[seats]("seats")
	guest.UpcastState(s, func(seatsV1) seats { return seats{} })
	text := say(t, s, abi.AppendDescribe(nil))
	if old == "" || !strings.Contains(text, `"features":["earlier_schemas"],`) ||
		!strings.Contains(text, `"earlier_schemas":[`+old+`]`) {
		t.Errorf("the schema was %s: %s", old, text)
	}
	if text := say(t, guest.New[none]("seats"), abi.AppendDescribe(nil)); strings.Contains(text, "earlier_schemas") {
		t.Errorf("got %s", text)
	}
}

func TestUpcastStateRefuses(t *testing.T) {
	type third struct{ N int }
	for name, c := range map[string]struct {
		define func(s *guest.Service[seats])
		want   string
	}{
		"twice": {func(s *guest.Service[seats]) {
			guest.UpcastState(s, toSeats, 1)
			guest.UpcastState(s, toSeats, 2)
		}, `the upcaster of state guest_test.seatsV2 is registered twice`},
		"a schema twice": {func(s *guest.Service[seats]) { guest.UpcastState(s, toSeats, 1, 1) },
			`state schema 1 is registered twice`},
		"the present schema": {func(s *guest.Service[seats]) {
			guest.UpcastState(s, toSeats, 1)
			s.StateSchema(1)
		}, `takes state schema 1, which is that of the present state`},
		"the present state": {func(s *guest.Service[seats]) {
			guest.UpcastState(s, func(old seats) seats { return old }, 1)
		}, `takes the present state`},
		"itself": {func(s *guest.Service[seats]) {
			guest.UpcastState(s, func(old seatsV1) seatsV1 { return old })
		}, `gives what it takes`},
		"no function": {func(s *guest.Service[seats]) { guest.UpcastState[seats, seatsV1, seats](s, nil) },
			`has no function`},
		"what is lost": {func(s *guest.Service[seats]) {
			guest.UpcastState(s, func(struct{ n int }) seats { return seats{} })
		}, `is not exported`},
		"nowhere": {func(s *guest.Service[seats]) { guest.UpcastState(s, seatsToV2) },
			`gives guest_test.seatsV2, which is neither the state nor`},
		"a circle": {func(s *guest.Service[seats]) {
			guest.UpcastState(s, seatsToV2)
			guest.UpcastState(s, func(seatsV2) third { return third{} })
			guest.UpcastState(s, func(third) seatsV1 { return seatsV1{} })
		}, `round in a circle: guest_test.seatsV1 to guest_test.seatsV2 to guest_test.third to guest_test.seatsV1`},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				text, _ := recover().(string)
				if !strings.Contains(text, c.want) || !strings.HasPrefix(text, "guest: ") {
					t.Errorf("got %q, want %q", text, c.want)
				}
			}()
			s := guest.New[seats]("seats")
			c.define(s)
			exchange(s, abi.AppendDescribe(nil))
			t.Error("the service starts")
		})
	}
}

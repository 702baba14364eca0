package guest_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
)

// diary is a state that keeps the info of each event, with what the event refers to.
type diary struct {
	Infos []guest.EventInfo
	Texts []string
}

// The events of a diary: exact, with text, and with what an encoding does not keep.
type (
	number struct {
		guest.Informed[diary]
		N int `json:"n"`
	}
	text struct {
		guest.Informed[diary]
		S string `json:"s"`
	}
	list struct {
		guest.Informed[diary]
		L []string `json:"l"`
	}
	plain struct{ S string } // without info
)

func (d *diary) add(info guest.EventInfo, what string) {
	d.Infos, d.Texts = append(d.Infos, info), append(d.Texts, what)
}

func (e number) ApplyWith(d *diary, info guest.EventInfo) { d.add(info, fmt.Sprint(e.N)) }
func (e text) ApplyWith(d *diary, info guest.EventInfo)   { d.add(info, e.S) }
func (e list) ApplyWith(d *diary, info guest.EventInfo)   { d.add(info, fmt.Sprint(e.L)) }
func (e plain) Apply(d *diary)                            { d.add(guest.EventInfo{}, e.S) }

// newDiary is a service whose command calls emit, and whose query gives the state.
func newDiary(emit func(*guest.Tx[diary]), state **diary, more ...guest.Event[diary]) *guest.Service[diary] {
	s := guest.New[diary]("diary").Events(number{}, text{}, list{}, plain{}).Events(more...)
	guest.Command(s, "emit", func(tx *guest.Tx[diary], c struct{}) (struct{}, error) {
		emit(tx)
		return c, nil
	})
	guest.Query(s, "look", func(v *guest.View[diary], q struct{}) (struct{}, error) {
		*state = v.State()
		return q, nil
	})
	return s
}

// More event types than are searched one by one.
type (
	e1  struct{ plain }
	e2  struct{ plain }
	e3  struct{ plain }
	e4  struct{ plain }
	e5  struct{ plain }
	e6  struct{ plain }
	e7  struct{ plain }
	e8  struct{ plain }
	e9  struct{ plain }
	e10 struct{ plain }
	e11 struct{ plain }
	e12 struct{ plain }
	e13 struct{ plain }
)

// An informed event sees when it is emitted what it sees whenever it is replayed.
func TestAnEmittedEventSeesWhatItsReplaySees(t *testing.T) {
	meta := guest.Metadata(nil).AppendPair("by", "ada")
	emit := func(tx *guest.Tx[diary]) {
		own := slices.Clone(meta)
		tx.EmitWith(number{N: 1}, own)
		tx.Emit(text{S: "é"})
		tx.Emit(text{S: "\xff"})
		tx.EmitWith(list{L: []string{"a"}}, own)
		clear(own) // the handler may use its memory again
		tx.Emit(plain{"p"})
		tx.Emit(number{N: 2})
	}
	const at = uint64(1_700_000_000_123_456_789)
	when := time.Unix(0, int64(at)).UTC()
	info := func(version uint64, m guest.Metadata) guest.EventInfo {
		return guest.EventInfo{Key: "k", Version: version, Time: when, Metadata: m}
	}
	want := &diary{Texts: []string{"1", "é", "\ufffd", "[a]", "p", "2"}, Infos: []guest.EventInfo{info(8, meta),
		info(9, nil), info(10, nil), info(11, meta), {}, info(13, nil)}}
	for name, more := range map[string][]guest.Event[diary]{
		"few types":  nil,
		"many types": {e1{}, e2{}, e3{}, e4{}, e5{}, e6{}, e7{}, e8{}, e9{}, e10{}, e11{}, e12{}, e13{}},
	} {
		var state *diary
		s := newDiary(emit, &state, more...)
		for slot := range uint32(2) {
			exchange(s, abi.AppendOpen(nil, slot, 7, "k", []byte(`{"Infos":null,"Texts":null}`)))
		}
		command := abi.AppendCommand(nil, 0, 0, 7, at, &[abi.SeedSize]byte{}, "c1",
			abi.Metadata(nil).AppendPair("traceparent", "00-1"), nil)
		var replay []byte
		version := uint64(7)
		for out := slices.Clone(exchange(s, command)); len(out) > 0; {
			r, rest, err := abi.DecodeResponse(out)
			if err != nil {
				t.Fatal(err)
			}
			out = rest
			if r.Kind == abi.RespEvent {
				e, _ := abi.DecodeEvent(&r)
				version++
				replay = abi.AppendApply(replay, 1, r.Type, version, at, e.Body, e.Metadata)
			}
		}
		if out := say(t, s, replay); out != "" {
			t.Fatalf("%s: %s", name, out)
		}
		clear(replay) // what a state keeps of an event is not in the request
		for slot, how := range []string{"live", "replayed"} {
			exchange(s, abi.AppendQuery(nil, uint32(slot), 0, 0, 0, nil))
			if !reflect.DeepEqual(state, want) {
				t.Errorf("%s, %s:\n got  %+v\n want %+v", name, how, state, want)
			}
		}
	}
}

// A stored event that is upcast to an informed one has its own info.
func TestAnUpcastEventSeesTheInfoOfTheStoredOne(t *testing.T) {
	type textV1 struct{ T string }
	type textV2 struct{ S string }
	var state *diary
	s := newDiary(func(*guest.Tx[diary]) {}, &state)
	guest.Upcast(s, "text-1", func(old textV1) textV2 { return textV2{old.T} })
	guest.Upcast(s, "text-2", func(old textV2) text { return text{S: old.S} })
	guest.Upcast(s, "plain-1", func(old struct{ P string }) plain { return plain{old.P} })
	meta := guest.Metadata(nil).AppendPair("by", "ada")
	request := abi.AppendOpen(nil, 0, 0, "k", nil)
	request = abi.AppendApply(request, 0, 4, 1, 5, []byte(`{"T":"one"}`), meta)
	request = abi.AppendApply(request, 0, 6, 2, 6, []byte(`{"P":"two"}`), meta)
	request = abi.AppendApply(request, 0, 5, 3, 7, []byte(`{"S":"three"}`), nil)
	if out := say(t, s, request); out != "" {
		t.Fatal(out)
	}
	exchange(s, abi.AppendQuery(nil, 0, 0, 0, 0, nil))
	want := &diary{Texts: []string{"one", "two", "three"}, Infos: []guest.EventInfo{
		{Key: "k", Version: 1, Time: time.Unix(0, 5).UTC(), Metadata: meta}, {},
		{Key: "k", Version: 3, Time: time.Unix(0, 7).UTC()}}}
	if !reflect.DeepEqual(state, want) {
		t.Errorf("got  %+v\nwant %+v", state, want)
	}
}

// uninformed embeds Informed and has no ApplyWith that fits.
type uninformed struct{ guest.Informed[diary] }

func (uninformed) ApplyWith(*diary, *guest.EventInfo) {}

func TestInformedWithoutApplyWith(t *testing.T) {
	defer func() {
		text, _ := recover().(string)
		if want := "embeds guest.Informed and has no method ApplyWith(*guest_test.diary, guest.EventInfo)"; !strings.
			Contains(text, want) {
			t.Errorf("got %q", text)
		}
	}()
	guest.New[diary]("diary").Events(uninformed{})
	t.Error("it is registered")
}

// The embedded type is not in the event's schema or data.
func TestInformedIsNoData(t *testing.T) {
	var state *diary
	s := newDiary(func(tx *guest.Tx[diary]) { tx.Emit(number{N: 3}) }, &state)
	for _, e := range eventsOf(t, s) {
		if strings.Contains(e.Schema, "nformed") {
			t.Errorf("%s has the schema %s", e.Name, e.Schema)
		}
	}
	exchange(s, abi.AppendOpen(nil, 0, 0, "k", nil))
	r, _, err := abi.DecodeResponse(exchange(s, command(0, 0, `{}`)))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := abi.DecodeEvent(&r); err != nil || string(e.Body) != `{"n":3}` {
		t.Errorf("got %s, %v", e.Body, err)
	}
}

// Entities that decide commands in turns equal those that have the same events replayed, in requests of any number of
// events and from any snapshot between.
func TestInformedEventsOfManyEntities(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var state *diary
	s := newDiary(func(tx *guest.Tx[diary]) {
		for range r.IntN(4) {
			var m guest.Metadata
			for range r.IntN(3) {
				m = m.AppendPair("name", strings.Repeat("v", r.IntN(5)))
			}
			all := []guest.Event[diary]{number{N: r.IntN(9)}, text{S: "t"}, list{L: []string{"l"}}, plain{"p"}}
			tx.EmitWith(all[r.IntN(len(all))], m)
		}
	}, &state)
	const entities = 5
	var logs [entities][]func(request []byte, slot uint32) []byte
	snapshot := func(slot uint32) []byte {
		res, _, err := abi.DecodeResponse(exchange(s, abi.AppendSnapshotRequest(nil, slot)))
		if err != nil || res.Kind != abi.RespSnapshot {
			t.Fatalf("%v, %v", res.Kind, err)
		}
		b, _ := abi.DecodeBody(&res)
		return slices.Clone(b)
	}
	key := func(slot uint32) string { return fmt.Sprint("entity-", slot%entities) }
	for slot := range uint32(entities) {
		exchange(s, abi.AppendOpen(nil, slot, 0, key(slot), nil))
	}
	for n := range 60 {
		slot, at := uint32(r.IntN(entities)), uint64(1000+n)
		version := uint64(len(logs[slot]))
		command := abi.AppendCommand(nil, slot, 0, version, at, &[abi.SeedSize]byte{}, "c", nil, nil)
		for out := slices.Clone(exchange(s, command)); len(out) > 0; {
			res, rest, err := abi.DecodeResponse(out)
			if err != nil {
				t.Fatal(err)
			}
			if out = rest; res.Kind != abi.RespEvent {
				continue
			}
			e, _ := abi.DecodeEvent(&res)
			version++
			v := version
			logs[slot] = append(logs[slot], func(b []byte, slot uint32) []byte {
				return abi.AppendApply(b, slot, res.Type, v, at, e.Body, e.Metadata)
			})
		}
	}
	var total int
	for slot := range uint32(entities) {
		want, other := snapshot(slot), slot+entities
		exchange(s, abi.AppendOpen(nil, other, 0, key(slot), nil))
		log := logs[slot]
		total += len(log)
		for done := 0; done < len(log); {
			var request []byte
			next := done + 1 + r.IntN(len(log)-done)
			for _, apply := range log[done:next] {
				request = apply(request, other)
			}
			if done = next; len(exchange(s, request)) > 0 {
				t.Fatal("an event is refused")
			}
			half := snapshot(other)
			exchange(s, abi.AppendOpen(nil, other, uint64(done), key(slot), half))
		}
		if got := snapshot(other); !bytes.Equal(got, want) {
			t.Errorf("%s, replayed, is\n%s\nand it was\n%s", key(slot), got, want)
		}
	}
	if total == 0 {
		t.Error("no event was emitted")
	}
}

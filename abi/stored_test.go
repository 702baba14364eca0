package abi_test

import (
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

func TestStored(t *testing.T) {
	s := abi.NewStored(&abi.Manifest{StateSchema: 7, EarlierSchemas: []uint32{3, 5}, Events: []abi.EventType{
		{Name: "held"}, {Name: "reserved", Aliases: []string{"booked", "taken"}, UpcastTo: "held"}, {Name: "freed"}}})
	for name, want := range map[string]uint16{"held": 0, "reserved": 1, "booked": 1, "taken": 1, "freed": 2} {
		if typ, ok := s.Event(name); !ok || typ != want {
			t.Errorf("%s: %d, %v", name, typ, ok)
		}
	}
	if _, ok := s.Event("Held"); ok {
		t.Error("a name in another case is known")
	}
	for schema, want := range map[uint32]struct {
		index       uint16
		earlier, ok bool
	}{7: {0, false, true}, 3: {0, true, true}, 5: {1, true, true}, 0: {0, false, false}} {
		if index, earlier, ok := s.Snapshot(schema); index != want.index || earlier != want.earlier || ok != want.ok {
			t.Errorf("%d: %d, %v, %v", schema, index, earlier, ok)
		}
	}
}

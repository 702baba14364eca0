package format

import (
	"bytes"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Ids that share memory stay what they were, and take few pieces of it, none of them large.
func TestIDsThatShareMemory(t *testing.T) {
	var ids [][]byte
	for i := range 200 {
		ids = append(ids, bytes.Repeat([]byte{'a' + byte(i%26)}, []int{36, 0, 1, journal.MaxCommandID}[i%4]))
	}
	read := func() (all []journal.CommandID) {
		texts := Texts{Together: true}
		for _, id := range ids {
			if all = append(all, texts.ID(id)); texts.ids.Cap() > 2*togetherMost {
				t.Fatalf("%d bytes", texts.ids.Cap())
			}
		}
		return all
	}
	for i, id := range read() {
		if string(id) != string(ids[i]) {
			t.Fatalf("id %d is %q, not %q", i, id, ids[i])
		}
	}
	if n := testing.AllocsPerRun(10, func() { read() }); n > 40 {
		t.Errorf("%v pieces of memory for %d ids", n, len(ids))
	}
	one := Texts{Together: true}
	if one.ID(ids[0]); one.ids.Cap() > 2*len(ids[0]) {
		t.Errorf("an id by itself takes %d bytes", one.ids.Cap())
	}
}

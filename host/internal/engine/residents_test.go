package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// TestResidentsAgainstAList compares the table with a list in the order of use.
func TestResidentsAgainstAList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	r := newResidents(8)
	var model []*entity // least recently used first
	for range 20000 {
		key := service.Key(fmt.Sprint(random.IntN(20)))
		at := slices.IndexFunc(model, func(e *entity) bool { return e.key == key })
		switch n := random.IntN(100); {
		case n == 0:
			r.forget()
			model = nil
		case n < 20 && at >= 0:
			r.remove(model[at])
			model = slices.Delete(model, at, at+1)
		case n < 25:
			r.dropped()
		default:
			e := r.get(key)
			if (e != nil) != (at >= 0) || e != nil && e != model[at] {
				t.Fatalf("%s: got %v, it is at %d of the model", key, e, at)
			}
			if e != nil {
				model = append(slices.Delete(model, at, at+1), e)
				break
			}
			if r.full() != (len(model) == 8) {
				t.Fatalf("full with %d", len(model))
			}
			if r.full() {
				if r.oldest() != model[0] {
					t.Fatalf("the oldest is %v, not %v", r.oldest(), model[0])
				}
				r.remove(r.oldest())
				model = model[1:]
			}
			slot := r.takeSlot()
			if i := slices.IndexFunc(model, func(e *entity) bool { return e.slot == slot }); i >= 0 {
				t.Fatalf("slot %d is that of %s", slot, model[i].key)
			}
			model = append(model, r.add(key, slot, 0))
		}
		if r.len() != len(model) {
			t.Fatalf("%d residents, %d in the model", r.len(), len(model))
		}
		if len(r.free)+len(r.retired)+r.len() != int(r.next) {
			t.Fatalf("%d slots: %d free, %d retired, %d in use", r.next, len(r.free), len(r.retired), r.len())
		}
	}
}

package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// TestResidentsAgainstAList compares the table with a list in the order of use.
func TestResidentsAgainstAList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	account := budget.New(budget.Limits{budget.SandboxBytes: 1 << 20})
	r := newResidents(8, account)
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
			if err := r.reserve(key); err != nil {
				t.Fatal(err)
			}
			slot := r.takeSlot()
			if i := slices.IndexFunc(model, func(e *entity) bool { return e.slot == slot }); i >= 0 {
				t.Fatalf("slot %d is that of %s", slot, model[i].key)
			}
			model = append(model, r.add(key, slot, 0))
		}
		var used int64
		for _, e := range model {
			used += sizeOf(e.key)
		}
		if taken := account.Used(budget.SandboxBytes); r.used != used || r.taken != taken || used > taken {
			t.Fatalf("%d residents use %d bytes, not %d; %d of %d are taken", len(model), r.used, used, r.taken, taken)
		}
		if r.len() != len(model) {
			t.Fatalf("%d residents, %d in the model", r.len(), len(model))
		}
		if len(r.free)+len(r.retired)+r.len() != int(r.next) {
			t.Fatalf("%d slots: %d free, %d retired, %d in use", r.next, len(r.free), len(r.retired), r.len())
		}
	}
}

// The host's table of entities draws from the budget, also for entities without events. Without room for
// another entity, some are evicted; without room for one, the command or query is refused by name. Later ones
// use what has become free.
func TestResidentsKeepToTheBudget(t *testing.T) {
	account := budget.New(nil).Child("bank", budget.Limits{budget.SandboxBytes: 5000})
	e, _, _ := startBank(t, 1, func(o *Options) { o.Account = account })
	touch := func(n int) error {
		_, err := ask(e, balance(fmt.Sprint("account-", n)))
		return err
	}
	const keys = 200
	for n := range keys {
		if err := touch(n); err != nil {
			t.Fatal(err)
		}
		if used := account.Used(budget.SandboxBytes); used > 5000 {
			t.Fatalf("%d bytes are taken", used)
		}
	}
	shards, counters := counted(t, e)
	if n := shards[0].Resident; n < 15 || n > 25 || counters.Hydrated != keys {
		t.Errorf("%d entities are resident, %d were hydrated", n, counters.Hydrated)
	}
	if _, err := send(e, command("deposit", "account-0", "", "1")); err != nil {
		t.Errorf("a command: %v", err)
	}

	other := budget.New(budget.Limits{budget.SandboxBytes: 100}).Child("bank", nil)
	e, _, _ = startBank(t, 1, func(o *Options) { o.Account = other })
	err := touch(0)
	var refused *service.Error
	if !errors.As(err, &refused) || refused.Kind != service.KindQuota || refused.Resource != "sandbox_bytes" ||
		refused.Limit != 100 || refused.Service != "bank" {
		t.Errorf("without room for one: %+v", err)
	}
	_, err = send(e, command("deposit", "account-0", "", "1"))
	wantKind(t, err, service.KindQuota)
}

package latency

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// count returns how many commands a table has counted, by service and type.
func count(t *Table) map[string]uint64 {
	all := map[string]uint64{}
	for _, l := range t.Read() {
		for _, n := range l.Buckets {
			all[string(l.Service)+" "+string(l.Type)] += n
		}
	}
	return all
}

func wantCounts(t *testing.T, table *Table, want map[string]uint64) {
	t.Helper()
	if got := count(table); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBuckets(t *testing.T) {
	table := New(0)
	s := table.Service("bank")
	s.Know([]service.Type{"open"})
	for _, took := range []time.Duration{0, service.LatencyBounds[0], service.LatencyBounds[0] + 1, 32 * time.Second,
		33 * time.Second} {
		s.Observe("open", took)
	}
	got := table.Read()
	if len(got) != 1 || got[0].Sum != 65*time.Second+2*service.LatencyBounds[0]+1 {
		t.Fatalf("%+v", got)
	}
	last := len(service.LatencyBounds)
	if b := got[0].Buckets; b[0] != 2 || b[1] != 1 || b[last-1] != 1 || b[last] != 1 {
		t.Errorf("%v", b)
	}
}

// One service cannot use up the series of all others, however many types it has had.
func TestAServiceHasItsShareOfTheSeries(t *testing.T) {
	table := New(0)
	bank, shop := table.Service("bank"), table.Service("shop")
	var types []service.Type
	for n := range DefaultSeries + 1 {
		types = append(types, service.Type(fmt.Sprint("t", n)))
	}
	bank.Know(types)
	for _, typ := range types {
		bank.Observe(typ, 1)
	}
	bank.Know(nil) // another module
	bank.Observe("t0", 1)
	shop.Know([]service.Type{"sell"})
	shop.Observe("sell", 1)
	got := count(table)
	if len(got) != ServiceSeries+1 || got["bank other"] != DefaultSeries+3-ServiceSeries || got["shop sell"] != 1 {
		t.Errorf("%d series, %d others of bank, %d of shop", len(got), got["bank other"], got["shop sell"])
	}
}

// A type that only clients name gets no series, and the table's maximum holds for any number of
// services and types.
func TestSeriesAreBounded(t *testing.T) {
	table := New(4)
	bank := table.Service("bank")
	bank.Observe("before", 1) // no types are known yet
	bank.Know([]service.Type{"open", "close"})
	for n := range 100 {
		bank.Observe(service.Type(fmt.Sprint("made up ", n)), 1)
	}
	bank.Observe("open", 1)
	bank.Observe("close", 1)
	wantCounts(t, table, map[string]uint64{"bank other": 101, "bank open": 1, "bank close": 1})
	shop := table.Service("shop")
	shop.Know([]service.Type{"a", "b", "c"})
	for _, typ := range []service.Type{"a", "b", "c", "c"} { // room for one type, and none for the service's Other
		shop.Observe(typ, 1)
	}
	wantCounts(t, table, map[string]uint64{"bank other": 101, "bank open": 1, "bank close": 1, "shop a": 1,
		"_other other": 3})
	// A second service of the same name.
	again := table.Service("shop")
	again.Know([]service.Type{"a"})
	again.Observe("a", 1)
	wantCounts(t, table, map[string]uint64{"bank other": 101, "bank open": 1, "bank close": 1, "shop a": 1,
		"_other other": 4})
	again.Close()
	// Closing frees series, and a closed service counts nothing.
	bank.Close()
	bank.Observe("open", 1)
	bank.Observe("new", 1)
	shop.Observe("b", 1)
	wantCounts(t, table, map[string]uint64{"shop a": 1, "shop b": 1, "_other other": 4})
	again = table.Service("shop")
	again.Know([]service.Type{"a"})
	again.Observe("a", 1)
	if got := table.Read(); len(got) != 3 {
		t.Errorf("%d series of three", len(got))
	}
	wantCounts(t, table, map[string]uint64{"shop a": 2, "shop b": 1, "_other other": 4})
	again.Close()
	shop.Close()
	wantCounts(t, table, map[string]uint64{"_other other": 4})
	if n := table.series.Load(); n != 0 {
		t.Errorf("%d series are counted when all are gone", n)
	}
}

// A service of the same name continues the counters that Leave kept.
func TestALeftServiceIsTakenUp(t *testing.T) {
	table := New(0)
	bank := table.Service("bank")
	bank.Know([]service.Type{"open"})
	bank.Observe("open", 1)
	bank.Leave()
	bank.Observe("open", 1) // an answer that was under way at Leave
	wantCounts(t, table, map[string]uint64{"bank open": 2})
	other, again := table.Service("other"), table.Service("bank")
	again.Observe("open", 1)
	if twin := table.Service("bank"); twin == again || other == again {
		t.Error("two count for one service")
	}
	wantCounts(t, table, map[string]uint64{"bank open": 3})
	again.Close()
	wantCounts(t, table, map[string]uint64{})
	if n := table.series.Load(); n != 0 {
		t.Errorf("%d series are counted when all are gone", n)
	}
}

func TestAnybodyAtAnyTime(t *testing.T) {
	const limit = 10
	table := New(limit)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for round := range 50 {
				s := table.Service(service.Name(fmt.Sprint("s", n)))
				s.Know([]service.Type{"a", "b", "c"})
				var users sync.WaitGroup
				for range 2 {
					users.Go(func() {
						for i := range 30 {
							s.Observe(service.Type("abcd"[i%4:i%4+1]), time.Duration(i))
						}
					})
				}
				if round%2 == 0 {
					s.Close()
				}
				users.Wait()
				if got := table.Read(); len(got) > limit+1 {
					t.Errorf("%d series", len(got))
				}
				s.Close()
			}
		})
	}
	all.Wait()
	if n := table.series.Load(); n != 0 || len(table.services) != 0 {
		t.Errorf("%d series of %d services are left", n, len(table.services))
	}
}

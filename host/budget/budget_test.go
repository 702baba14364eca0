package budget

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func TestTakingIsAllOrNothing(t *testing.T) {
	host := New(Limits{FlightBytes: 100, SandboxBytes: 10})
	a, b := host.Child("a", Limits{FlightBytes: 60}), host.Child("b", nil)
	if err := a.Take(FlightBytes, 60); err != nil {
		t.Fatal(err)
	}
	if err := a.Take(FlightBytes, 1); err == nil {
		t.Error("a took more than its own limit")
	}
	if err := b.Take(FlightBytes, 41); err == nil {
		t.Error("b took more than the host has")
	}
	if got := [...]int64{a.Used(FlightBytes), b.Used(FlightBytes), host.Used(FlightBytes), b.Room(FlightBytes),
		a.Room(FlightBytes)}; got != [...]int64{60, 0, 60, 40, 0} {
		t.Errorf("used by a, b, host and room of b, a: %v", got)
	}
	if !b.TryTake(FlightBytes, 40) {
		t.Error("b did not get what is left")
	}
	a.Give(FlightBytes, 60)
	b.Give(FlightBytes, 40)
	if held := a.Close(); held != nil {
		t.Errorf("a still held %v", held)
	}
	if host.Used(FlightBytes) != 0 {
		t.Errorf("the host still holds %d", host.Used(FlightBytes))
	}
}

func TestARefusalSaysWhatIsUsedUp(t *testing.T) {
	host := New(Limits{FlightBytes: 100, SandboxBytes: 10})
	a, b := host.Child("a", nil), host.Child("b", nil)
	for _, err := range []error{a.Take(FlightBytes, 70), b.Take(FlightBytes, 20), b.Take(SandboxBytes, 10)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var e *service.Error
	if err := b.Take(FlightBytes, 11); !errors.As(err, &e) {
		t.Fatalf("taking too much: %v", err)
	}
	if e.Kind != service.KindOverloaded || e.Resource != "bytes_in_flight" || e.Used != 90 || e.Limit != 100 ||
		e.RetryAfter == 0 {
		t.Errorf("the refusal is %+v", e)
	}
	if strings.Contains(e.Message, "a: 70") || !strings.Contains(e.Detail, "a: 70 b: 20") {
		t.Errorf("holders are for operators only: message %q, detail %q", e.Message, e.Detail)
	}
	if err := a.Take(SandboxBytes, 1); service.KindOf(err) != service.KindQuota {
		t.Errorf("sandbox memory that is used up is %v", err)
	}
	usage := host.Usage()
	want := service.ResourceUsage{Resource: "bytes_in_flight", Used: 90, Limit: 100, Refused: 1,
		Holders: []service.ResourceHolder{{Name: "a", Used: 70}, {Name: "b", Used: 20}}}
	if !reflect.DeepEqual(usage[0], want) {
		t.Errorf("usage is %+v, want %+v", usage[0], want)
	}
}

func TestClosingGivesBackWhatWasForgotten(t *testing.T) {
	host := New(nil)
	a := host.Child("a", nil)
	if err := a.Take(Sandboxes, 3); err != nil {
		t.Fatal(err)
	}
	if held := a.Close(); !reflect.DeepEqual(held, Limits{Sandboxes: 3}) {
		t.Errorf("closing returned %v", held)
	}
	if host.Used(Sandboxes) != 0 || len(host.Holders(Sandboxes, 10)) != 0 {
		t.Errorf("the host still holds %d, by %v", host.Used(Sandboxes), host.Holders(Sandboxes, 10))
	}
}

// With concurrent callers no sum exceeds its limit, and nothing is lost.
func TestManyTakersKeepTheLimit(t *testing.T) {
	const limit = 1000
	host := New(Limits{FlightBytes: limit})
	var all sync.WaitGroup
	for seed := range uint64(8) {
		a := host.Child("a", Limits{FlightBytes: 400})
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1))
			var mine int64
			for range 5000 {
				n := 1 + random.Int64N(100)
				if a.TryTake(FlightBytes, n) {
					mine += n
				}
				if used := host.Used(FlightBytes); used < 0 || used > limit {
					t.Errorf("the host holds %d of %d", used, limit)
				}
				if random.IntN(3) == 0 {
					a.Give(FlightBytes, mine)
					mine = 0
				}
			}
			a.Give(FlightBytes, mine)
			if held := a.Close(); held != nil {
				t.Errorf("an account still held %v", held)
			}
		})
	}
	all.Wait()
	if host.Used(FlightBytes) != 0 {
		t.Errorf("%d are lost", host.Used(FlightBytes))
	}
}

// However many accounts take all they can get, those that hold little find room, and none exceeds
// its share.
func TestAShareLeavesRoomForOthers(t *testing.T) {
	const total, reserve, small = 256 << 20, 32 << 20, 64 << 10
	for _, greedy := range []int{1, 8, 32, 200} {
		host := New(Limits{FlightBytes: total})
		all := host.Group("connections", nil)
		all.SetShare(FlightBytes, Share{Parts: 8, Small: small, Reserve: reserve})
		for range greedy {
			a := all.Child("greedy", Limits{FlightBytes: 8 << 20})
			for a.TryTake(FlightBytes, 16<<10) {
			}
			if used, left := a.Used(FlightBytes), host.Room(FlightBytes); used > max(small, (left+used-reserve)/8) {
				t.Errorf("one of %d holds %d, while %d are left", greedy, used, left)
			}
		}
		late := all.Child("late", Limits{FlightBytes: 8 << 20})
		room := late.Room(FlightBytes)
		if room < small || !late.TryTake(FlightBytes, room) {
			t.Errorf("after %d greedy ones a newcomer gets %d", greedy, room)
		}
		var e *service.Error
		if err := late.Take(FlightBytes, 8<<20); !errors.As(err, &e) || e.Kind != service.KindOverloaded ||
			e.Limit == 0 {
			t.Errorf("beyond its share: %v", err)
		}
		if host.Used(FlightBytes) > total {
			t.Errorf("%d are in use", host.Used(FlightBytes))
		}
	}
}

func TestAGroupIsNoHolder(t *testing.T) {
	host := New(nil)
	group := host.Group("connections", nil)
	a, b := group.Child("a", nil), host.Child("b", nil)
	for _, err := range []error{a.Take(FlightBytes, 5), b.Take(FlightBytes, 7), group.Take(FlightBytes, 1)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, want := host.Holders(FlightBytes, 10), []Holder{{"b", 7}, {"a", 5}}; !reflect.DeepEqual(got, want) {
		t.Errorf("holders are %v, want %v", got, want)
	}
	if got, want := host.Usage()[FlightBytes].Holders, []service.ResourceHolder{{Name: "b", Used: 7},
		{Name: "a", Used: 5}}; !reflect.DeepEqual(got, want) {
		t.Errorf("usage names %v, want %v", got, want)
	}
}

// Refusals of a closed account still count.
func TestRefusalsOutliveTheirAccount(t *testing.T) {
	host := New(nil)
	group := host.Group("connections", nil)
	a := group.Child("a", Limits{FlightBytes: 1})
	for range 3 {
		if a.Take(FlightBytes, 2) == nil {
			t.Fatal("it took more than its limit")
		}
	}
	a.Close()
	group.Close()
	if n := host.Usage()[FlightBytes].Refused; n != 3 {
		t.Errorf("%d refusals are counted", n)
	}
}

func BenchmarkTakeAndGive(b *testing.B) {
	all := New(Limits{FlightBytes: 256 << 20}).Group("connections", nil)
	all.SetShare(FlightBytes, Share{Parts: 8, Small: 64 << 10, Reserve: 32 << 20})
	a := all.Child("a", Limits{FlightBytes: 8 << 20})
	for b.Loop() {
		if a.TryTake(FlightBytes, 1000) {
			a.Give(FlightBytes, 1000)
		}
	}
}

// A measured resource counts in all accounts above, and reduces the room of the others.
func TestWhatIsMeasuredCounts(t *testing.T) {
	host := New(Limits{DiskBytes: 100})
	a, b := host.Child("a", Limits{DiskBytes: 50}), host.Child("b", nil)
	a.Set(DiskBytes, 40)
	a.Set(DiskBytes, 70) // beyond its limit, as it is measured
	if got := [...]int64{a.Used(DiskBytes), host.Used(DiskBytes), b.Room(DiskBytes)}; got != [...]int64{70, 70, 30} {
		t.Errorf("used by a, host, and room of b: %v", got)
	}
	if over := [...]int64{a.Over(DiskBytes), b.Over(DiskBytes)}; over != [...]int64{20, 0} {
		t.Errorf("a and b are over their limits by %v", over)
	}
	var e *service.Error
	if err := a.Check(DiskBytes, 1); !errors.As(err, &e) || e.Kind != service.KindQuota || e.Used != 70 ||
		e.Limit != 50 {
		t.Errorf("a is checked: %v", err)
	}
	if err := b.Check(DiskBytes, 31); !errors.As(err, &e) || e.Limit != 100 {
		t.Errorf("b is checked for more than the host has: %v", err)
	}
	if err := b.Check(DiskBytes, 30); err != nil || host.Used(DiskBytes) != 70 {
		t.Errorf("b is checked for what there is: %v; the host holds %d", err, host.Used(DiskBytes))
	}
	a.Set(DiskBytes, 10)
	if err := a.Check(DiskBytes, 40); err != nil {
		t.Errorf("a has less: %v", err)
	}
	a.Close()
	a.Set(DiskBytes, 10)
	if host.Used(DiskBytes) != 0 {
		t.Errorf("a closed account holds %d", host.Used(DiskBytes))
	}
}

// What is given back after Close does not reach the accounts above twice, whatever the order of the
// two, and what is taken after Close is given back once.
func TestGivingBackAfterClose(t *testing.T) {
	host := New(Limits{SandboxBytes: 1000})
	service := host.Child("service", Limits{SandboxBytes: 500})
	sandbox := service.Child("sandbox", nil)
	for _, a := range []*Account{service, sandbox} {
		if err := a.Take(SandboxBytes, 100); err != nil {
			t.Fatal(err)
		}
	}
	used := func(want ...int64) {
		t.Helper()
		for k, a := range []*Account{host, service, sandbox} {
			if got := a.Used(SandboxBytes); got != want[k] {
				t.Errorf("the account %s has %d in use, not %d", a.name, got, want[k])
			}
		}
	}
	used(200, 200, 100)
	if held := service.Close(); held[SandboxBytes] != 200 {
		t.Errorf("it held %v", held)
	}
	if held := service.Close(); held != nil {
		t.Errorf("closed again it held %v", held)
	}
	used(0, 0, 100)
	service.Give(SandboxBytes, 100)
	used(0, 0, 100)
	if err := service.Take(SandboxBytes, 30); err != nil { // after Close
		t.Fatal(err)
	}
	used(30, 0, 100)
	service.Give(SandboxBytes, 30)
	if held := sandbox.Close(); held[SandboxBytes] != 100 {
		t.Errorf("the sandbox held %v", held)
	}
	used(0, 0, 0)
	sandbox.Give(SandboxBytes, 100)
	used(0, 0, 0)
	if err := service.Take(SandboxBytes, 1001); err == nil {
		t.Error("more than there is was taken from a closed account")
	}
	used(0, 0, 0)

	for range 100 {
		a := host.Child("a", Limits{SandboxBytes: 500})
		if err := a.Take(SandboxBytes, 300); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { a.Give(SandboxBytes, 100) })
		}
		all.Go(func() { a.Close() })
		all.Go(func() {
			if a.Take(SandboxBytes, 450) == nil {
				a.Give(SandboxBytes, 450)
			}
		})
		all.Wait()
		used(0, 0, 0)
	}
}

// The last part of a measured resource is for accounts that hold little, no matter how much the
// others hold.
func TestTheLastPartIsForThoseWhoHoldLittle(t *testing.T) {
	const limit = 800
	host := New(Limits{DiskBytes: limit})
	greedy := [4]*Account{}
	for i := range greedy {
		greedy[i] = host.Child(fmt.Sprint("greedy ", i), Limits{DiskBytes: limit / 4})
	}
	for refused := 0; refused < len(greedy); {
		refused = 0
		for _, a := range greedy {
			if a.CheckShare(DiskBytes, 1, 8) != nil {
				refused++
			} else {
				a.Set(DiskBytes, a.Used(DiskBytes)+1)
			}
		}
	}
	if used := host.Used(DiskBytes); used < limit*7/8 || used > limit*7/8+4 {
		t.Errorf("they hold %d of %d", used, limit)
	}
	var e *service.Error
	if err := greedy[0].CheckShare(DiskBytes, 1, 8); !errors.As(err, &e) || e.Kind != service.KindQuota ||
		e.Resource != "disk_bytes" || e.Used != host.Used(DiskBytes) || e.Limit != limit ||
		!strings.Contains(e.Message, "which greedy 0 does") {
		t.Errorf("the refusal is %+v", err)
	}
	small := host.Child("small", nil)
	for n := int64(0); n < 40; n++ {
		if err := small.CheckShare(DiskBytes, 1, 8); err != nil {
			t.Fatalf("who holds %d: %v", n, err)
		}
		small.Set(DiskBytes, n+1)
	}
	if err := small.CheckShare(DiskBytes, 100, 8); err == nil {
		t.Error("it got more than there is")
	}
	if err := New(nil).Child("a", nil).CheckShare(DiskBytes, 1<<40, 8); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

package guesttest_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
)

// box is a service with every mistake that a test should find.
type box struct {
	N      int            `json:"n"`
	Counts map[string]int `json:"counts"`
	Hidden int            `json:"-"`
}

type put struct {
	N    int    `json:"n"`
	Name string `json:"name"`
}

func (e put) Apply(b *box) {
	b.N += e.N
	if e.Name != "" {
		if b.Counts == nil {
			b.Counts = map[string]int{}
		}
		b.Counts[e.Name] += e.N
	}
}

type hid struct{ N int }

func (e hid) Apply(b *box) { b.Hidden += e.N; b.N = b.Hidden }

type foreign struct{}

func (foreign) Apply(*box) {}

// listener is a testing.TB that records the errors it gets.
type listener struct {
	testing.TB
	said []string
}

func (l *listener) Helper()                      {}
func (l *listener) Errorf(f string, args ...any) { l.said = append(l.said, fmt.Sprintf(f, args...)) }
func (l *listener) Fatalf(f string, args ...any) { l.Errorf(f, args...); panic(l) }
func (l *listener) Fatal(args ...any)            { l.Errorf("%s", fmt.Sprint(args...)); panic(l) }

// listen runs a case and returns the errors that it reports.
func listen(t *testing.T, run func(t testing.TB)) string {
	l := &listener{TB: t}
	func() {
		defer func() {
			if v := recover(); v != nil && v != any(l) {
				panic(v)
			}
		}()
		run(l)
	}()
	return strings.Join(l.said, "\n")
}

var good = guest.New[box]("box").Events(put{}, hid{})

func init() {
	s := good
	type none = struct{}
	guest.Command(s, "put", func(tx *guest.Tx[box], c put) (int, error) { tx.Emit(c); return tx.State().N, nil })
	guest.Command(s, "sneak", func(tx *guest.Tx[box], _ none) (none, error) { tx.State().N++; return none{}, nil })
	guest.Command(s, "sneak-refuse", func(tx *guest.Tx[box], _ none) (none, error) {
		tx.State().N++
		return none{}, guest.Reject("no", "no")
	})
	guest.Command(s, "hide", func(tx *guest.Tx[box], _ none) (none, error) { tx.Emit(hid{1}); return none{}, nil })
	guest.Command(s, "clock", func(tx *guest.Tx[box], _ none) (int64, error) { return time.Now().UnixNano(), nil })
	guest.Command(s, "panic",
		func(tx *guest.Tx[box], _ none) (none, error) { var p *box; return none{}, fmt.Errorf("%d", p.N) })
	guest.Command(s, "late", func(tx *guest.Tx[box], _ none) (none, error) {
		tx.Emit(put{N: 1})
		return none{}, guest.Reject("no", "no")
	})
	guest.Command(s, "error", func(tx *guest.Tx[box], _ none) (none, error) { return none{}, fmt.Errorf("plain") })
	guest.Command(s, "foreign",
		func(tx *guest.Tx[box], _ none) (none, error) { tx.Emit(foreign{}); return none{}, nil })
	guest.Command(s, "random", func(tx *guest.Tx[box], _ none) (uint64, error) { return tx.Rand().Uint64(), nil })
	guest.Command(s, "when", func(tx *guest.Tx[box], _ none) (time.Time, error) { return tx.Now(), nil })
	guest.Command(s, "stamp", func(tx *guest.Tx[box], _ none) (string, error) {
		who, _ := tx.Metadata("user")
		tx.EmitWith(put{N: 1}, guest.Metadata(nil).AppendPair("user", who))
		return tx.CommandID(), nil
	})
	guest.Query(s, "poke", func(v *guest.View[box], _ none) (none, error) { v.State().N++; return none{}, nil })
}

func TestGoodServicesPass(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	guesttest.Given(t, good, "k", put{N: 1}).At(at).
		When("put", put{2, "a"}).Then(put{2, "a"}).Reply(3).
		When("put", put{3, "b"}).Then(put{3, "b"}).Reply(6).
		When("random", nil).Then().
		Seed([16]byte{9}).When("random", nil).Reply(rand.New(rand.NewPCG(9, 0)).Uint64()).
		ID("c-7").With("user", "ada").When("stamp", nil).Then(put{N: 1}).Carries(0, "user", "ada").Reply("c-7").
		When("when", nil).Reply(at).
		When("panic", nil).Fault(abi.CodePanic).
		When("late", nil).Fault(abi.CodeErrorAfterEmit).
		When("error", nil).Fault(abi.CodeError).
		When("foreign", nil).Fault(abi.CodePanic).
		State(func(b *box) {
			if b.N != 7 || b.Counts["a"] != 2 || b.Counts["b"] != 3 {
				t.Errorf("state %+v", b)
			}
		})
}

// Each kind of wrong service, and each wrong expectation, fails its test with a reason.
// Data that is not within the limits in tags is refused as a host refuses it, before the handler decides.
func TestLimitsAreEnforced(t *testing.T) {
	type reserve struct {
		Seats int    `json:"seats" minimum:"1" maximum:"8"`
		Class string `json:"class" enum:"stalls,balcony"`
	}
	type find struct {
		Page *int `json:"page" minimum:"1"`
	}
	s := guest.New[box]("seats").Events(put{})
	guest.Command(s, "reserve", func(tx *guest.Tx[box], c reserve) (int, error) {
		tx.Emit(put{c.Seats, c.Class})
		return c.Seats, nil
	})
	guest.Query(s, "find", func(*guest.View[box], find) (int, error) { return 1, nil })
	zero, one := 0, 1
	guesttest.Given(t, s, "k").
		When("reserve", reserve{2, "stalls"}).Then(put{2, "stalls"}).Reply(2).
		When("reserve", reserve{0, "stalls"}).Rejected("bad_command").
		When("reserve", reserve{9, "stalls"}).Rejected("bad_command").
		When("reserve", reserve{2, "attic"}).Rejected("bad_command").
		When("reserve", reserve{1, "balcony"}).Then(put{1, "balcony"}).
		Query("find", find{&one}).Reply(1).
		Query("find", nil).Reply(1).
		Query("find", find{&zero}).Rejected("bad_query")
	said := listen(t, func(t testing.TB) { guesttest.Given(t, s, "k").When("reserve", reserve{0, "stalls"}).Reply(0) })
	if !strings.Contains(said, "/seats is 0, less than 1") {
		t.Errorf("said %q", said)
	}
}

// The example in the documentation of package guest.
func TestTheDocumentedTags(t *testing.T) {
	type reserve struct {
		_     struct{} `doc:"Reserves seats for a guest."`
		Email string   `json:"email" doc:"Where the tickets go." format:"email" maxLength:"254"`
		Class string   `json:"class" enum:"stalls,balcony" example:"stalls"`
		Seats int      `json:"seats" minimum:"1" maximum:"8"`
		Codes []string `json:"codes,omitempty" maxItems:"3" pattern:"^[A-Z]{4}$"`
	}
	s := guest.New[box]("seats").Events(put{})
	guest.Command(s, "reserve", func(tx *guest.Tx[box], c reserve) (int, error) { return c.Seats, nil })
	good := reserve{Email: "a@b.example", Class: "stalls", Seats: 8, Codes: []string{"ABCD"}}
	c := guesttest.Given(t, s, "k").When("reserve", good).Reply(8)
	for _, change := range []func(r *reserve){
		func(r *reserve) { r.Email = strings.Repeat("x", 255) },
		func(r *reserve) { r.Class = "" },
		func(r *reserve) { r.Seats = 9 },
		func(r *reserve) { r.Codes = []string{"ABCD", "abcd"} },
		func(r *reserve) { r.Codes = make([]string, 4) },
	} {
		bad := good
		change(&bad)
		c.When("reserve", bad).Rejected("bad_command")
	}
}

func TestBadServicesFail(t *testing.T) {
	start := func(t testing.TB) *guesttest.Case[box] { return guesttest.Given(t, good, "k") }
	for _, c := range []struct {
		name string
		run  func(t testing.TB)
		want string
	}{
		{"state without an event",
			func(t testing.TB) { start(t).When("sneak", nil) }, "changed the state without an event"},
		{"state changed by a refusal",
			func(t testing.TB) { start(t).When("sneak-refuse", nil) }, "was rejected (no) and changed the state"},
		{"state that no snapshot holds",
			func(t testing.TB) { start(t).When("hide", nil).When("hide", nil) }, "loses something that later events " +
				"need"},
		{"the clock", func(t testing.TB) { start(t).When("clock", nil) }, "is not deterministic"},
		{"a query that writes", func(t testing.TB) { start(t).Query("poke", nil) }, "query poke changed the state"},
		{"wrong events",
			func(t testing.TB) { start(t).When("put", put{N: 1}).Then(put{N: 2}) }, `put{"n":1,"name":""}, reply 1`},
		{"missing events", func(t testing.TB) { start(t).When("put", put{N: 1}).Then() }, "want no events"},
		{"wrong metadata",
			func(t testing.TB) { start(t).When("stamp", nil).Carries(0, "user", "ada") }, `event 0 carries user "",` +
				` want "ada"`},
		{"metadata of no event",
			func(t testing.TB) { start(t).When("stamp", nil).Carries(1, "user", "ada") }, "there is no event 1"},
		{"a wrong reply", func(t testing.TB) { start(t).When("put", put{N: 1}).Reply(2) }, "want reply 2"},
		{"a rejection that was none",
			func(t testing.TB) { start(t).When("put", put{N: 1}).Rejected("no") }, "want rejected (no)"},
		{"a fault that was none",
			func(t testing.TB) { start(t).When("put", put{N: 1}).Fault("panic") }, "want fault (panic)"},
		{"a fault not expected",
			func(t testing.TB) { start(t).When("panic", nil).Then() }, "fault (panic): runtime error"},
		{"an unknown command", func(t testing.TB) { start(t).When("fly", nil) }, `no command "fly"`},
		{"an unknown query", func(t testing.TB) { start(t).Query("fly", nil) }, `no query "fly"`},
		{"an unregistered event", func(t testing.TB) { guesttest.Given(t, good, "k", foreign{}) }, "not registered"},
		{"a guest that breaks",
			func(t testing.TB) { guesttest.GivenOn(t, broken{}, good, "k") }, "the guest broke: trap"},
	} {
		if got := listen(t, c.run); !strings.Contains(got, c.want) {
			t.Errorf("%s: the test says %q, want something with %q", c.name, got, c.want)
		}
	}
}

// counted counts the events and the snapshots that are sent to a service.
type counted struct {
	guesttest.Driver
	applied, snapshots, bytes int
}

func (c *counted) Exchange(request []byte) ([]byte, error) {
	c.bytes = max(c.bytes, len(request))
	for rest := request; len(rest) > 0; {
		r, next, err := abi.DecodeRequest(rest)
		if err != nil {
			return nil, err
		}
		switch rest = next; r.Kind {
		case abi.ReqApply:
			c.applied++
		case abi.ReqSnapshot:
			c.snapshots++
		}
	}
	return c.Driver.Exchange(request)
}

// A When replays each event of its history a bounded number of times, however long it is.
func TestLongHistoriesAreLinear(t *testing.T) {
	for _, n := range []int{0, 1, 31, 32, 33, 100, 800, 3200} {
		events := make([]guest.Event[box], n)
		for i := range events {
			events[i] = put{N: i, Name: string(rune('a' + i%26))}
		}
		d := &counted{Driver: guesttest.Native(good)}
		guesttest.GivenOn(t, d, good, "k", events...).When("put", put{2, "a"}).Then(put{2, "a"})
		if bound := 8*n + 600; d.applied > bound || d.snapshots > 80 {
			t.Errorf("%d events: %d were applied, more than %d, or %d snapshots taken", n, d.applied, bound,
				d.snapshots)
		}
		if d.bytes > 400<<10 {
			t.Errorf("%d events: a request of %d bytes", n, d.bytes)
		}
	}
}

// In a long history, too, a When finds what snapshots lose and what no event records: at the
// beginning, in the middle and at the end.
func TestLongHistoriesAreChecked(t *testing.T) {
	for _, n := range []int{33, 200} {
		for at := range n - 1 {
			if n > 50 && at%20 != 0 && at < n-8 {
				continue
			}
			events := make([]guest.Event[box], n)
			for i := range events {
				events[i] = put{N: 1}
			}
			// The last event needs what the snapshots before it have lost.
			events[at], events[n-1] = hid{1}, hid{1}
			got := listen(t, func(t testing.TB) { guesttest.Given(t, good, "k", events...).When("put", put{N: 1}) })
			if !strings.Contains(got, "loses something that later events need") {
				t.Errorf("hidden at %d of %d events: %q", at, n, got)
			}
		}
		events := make([]guest.Event[box], n)
		for i := range events {
			events[i] = put{N: 1}
		}
		got := listen(t, func(t testing.TB) { guesttest.Given(t, good, "k", events...).When("sneak", nil) })
		if !strings.Contains(got, "changed the state without an event") {
			t.Errorf("%d events: %q", n, got)
		}
	}
}

type broken struct{}

func (broken) Exchange([]byte) ([]byte, error) { return nil, fmt.Errorf("trap") }

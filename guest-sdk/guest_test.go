package guest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/internal/kit"
)

type state struct {
	N int `json:"n"`
}

type moved struct {
	By int `json:"by"`
}

func (e moved) Apply(s *state) { s.N += e.By }

type renamed struct{}

func (renamed) Apply(*state) {}

type box struct{ P *int } // one pointer in memory, which an interface holds directly

func (e box) Apply(s *state) { s.N = *e.P }

type closed struct{ n int }

type secret struct{ Lists [][]closed }

func (e secret) Apply(s *state) { s.N = e.Lists[0][0].n }

func newService() *guest.Service[state] {
	s := guest.New[state]("svc").Version("v7").StateSchema(3).
		Events(moved{}, guest.Named(renamed{}, "new.name", "old.name"), box{})
	guest.Command(s, "move", func(tx *guest.Tx[state], c moved) (int, error) {
		tx.EmitWith(c, abi.Metadata(nil).AppendPair("by", tx.CommandID()))
		return tx.State().N, nil
	})
	guest.Command(s, "box",
		func(tx *guest.Tx[state], n int) (uint64, error) { tx.Emit(box{&n}); return tx.Version(), nil })
	guest.Command(s, "leak", func(tx *guest.Tx[state], c struct{}) (struct{}, error) {
		until := release
		go func() { <-until }()
		return c, nil
	})
	guest.Command(s, "trace", func(tx *guest.Tx[state], _ struct{}) (string, error) {
		v, _ := tx.Metadata("traceparent")
		return tx.Key() + " " + v, nil
	})
	guest.Query(s, "n", func(v *guest.View[state], _ struct{}) (int, error) { return v.State().N, nil })
	return s
}

// release ends the goroutines that the leaking handler has started.
var release chan struct{}

func command(slot uint32, typ uint16, body string) []byte {
	return abi.AppendCommand(nil, slot, typ, 0, 0, &[abi.SeedSize]byte{}, "c1",
		abi.Metadata(nil).AppendPair("traceparent", "00-1"), []byte(body))
}

// exchange sends a request to a service and returns the response.
func exchange[S any](s *guest.Service[S], request []byte) []byte { return kit.Of(s).Exchange(request) }

// say sends a request and shows the answer's frames.
func say[S any](t *testing.T, s *guest.Service[S], request []byte) string {
	t.Helper()
	var all []string
	for out := exchange(s, request); len(out) > 0; {
		r, rest, err := abi.DecodeResponse(out)
		if err != nil {
			t.Fatal(err)
		}
		out = rest
		text := r.Kind.String()
		switch r.Kind {
		case abi.RespReject, abi.RespFault:
			x, err := abi.DecodeRefusal(&r)
			if err != nil {
				t.Fatal(err)
			}
			text += " " + string(x.Code)
		case abi.RespEvent:
			e, err := abi.DecodeEvent(&r)
			if err != nil {
				t.Fatal(err)
			}
			text += " " + string(e.Body)
			if v, ok := abi.Metadata(e.Metadata).Get("by"); ok {
				text += " by " + string(v)
			}
		default:
			b, err := abi.DecodeBody(&r)
			if err != nil {
				t.Fatal(err)
			}
			text += " " + string(b)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// alone waits until goroutines of earlier tests have ended. A guest counts goroutines to find
// one that a handler has started; one that ends in the meantime would hide it.
func alone() {
	stacks := make([]byte, 1<<20)
	for strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "\ncreated by testing.(*T).Run ") > 1 {
		runtime.Gosched()
	}
}

func TestAnswers(t *testing.T) {
	release = make(chan struct{})
	defer close(release)
	alone()
	s := newService()
	for _, c := range []struct {
		name    string
		request []byte
		want    string
	}{
		{"nothing", nil, ""},
		{"a command before Open", command(0, 0, `{"by":1}`), "Fault no_entity"},
		{"Open", abi.AppendOpen(nil, 0, 0, "k", nil), ""},
		{"a command", command(0, 0, `{"by":2}`), `Event {"by":2} by c1, Reply 2`},
		{"an event that is a pointer", command(0, 1, `9`), `Event {"P":9}, Reply 2`},
		{"metadata", command(0, 3, ``), `Reply "k 00-1"`},
		{"a query", abi.AppendQuery(nil, 0, 0, 0, 0, nil), "Reply 9"},
		{"a query with garbage", abi.AppendQuery(nil, 0, 0, 0, 0, []byte("[")), "Reject bad_query"},
		{"a body of another shape", command(0, 0, `{"by":"x"}`), "Reject bad_command"},
		{"an unknown command", command(0, 99, ``), "Fault unknown_type"},
		{"an unknown query", abi.AppendQuery(nil, 0, 99, 0, 0, nil), "Fault unknown_type"},
		{"an unknown event", abi.AppendApply(nil, 0, 99, 1, 0, nil, nil), "Fault unknown_type"},
		{"what follows it", abi.AppendApply(nil, 0, 0, 1, 0, []byte("[]"), nil), ""},
		{"Open again", abi.AppendOpen(nil, 0, 5, "k", []byte(`{"n":9}`)), ""},
		{"an event of another shape", abi.AppendApply(nil, 0, 0, 1, 0, []byte("[]"), nil), "Fault bad_event"},
		{"a command to what could not be rebuilt", command(0, 0, `{"by":1}`), "Fault no_entity"},
		{"Open once more", abi.AppendOpen(nil, 0, 5, "k", []byte(`{"n":9}`)), ""},
		{"a goroutine left behind", command(0, 2, ``), "Fault goroutine_leak"},
		{"the next command", command(0, 0, `{"by":1}`), `Event {"by":1} by c1, Reply 10`},
		{"Snapshot", abi.AppendSnapshotRequest(nil, 0), `Snapshot {"n":10}`},
		{"Open with a snapshot", abi.AppendOpen(nil, 0, 5, "k", []byte(`{"n":4}`)), ""},
		{"its state", abi.AppendQuery(nil, 0, 0, 0, 0, nil), "Reply 4"},
		{"Open with a broken snapshot", abi.AppendOpen(nil, 0, 5, "k", []byte(`[`)), "Fault bad_snapshot"},
		{"after it", abi.AppendQuery(nil, 0, 0, 0, 0, nil), "Fault no_entity"},
		{"Drop of what is not there", abi.AppendDrop(nil, 7), ""},
		{"a slot used again", abi.AppendQuery(abi.AppendOpen(nil, 0, 0, "k", nil), 0, 0, 0, 0, nil), "Reply 0"},
		{"a slot beyond all bounds", abi.AppendOpen(nil, 1<<30, 0, "k", nil), "Fault bad_frame"},
		{"half a frame", command(0, 0, ``)[:40], "Fault bad_frame"},
	} {
		if got := say(t, s, c.request); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestManifest(t *testing.T) {
	got := strings.TrimPrefix(say(t, newService(), abi.AppendDescribe(nil)), "Description ")
	if !json.Valid([]byte(got)) {
		t.Fatalf("not JSON: %s", got)
	}
	for _, want := range []string{
		`"abi":1,"service":"svc","version":"v7","sdk":"bulkhead-go/1","state_schema":3`,
		`{"name":"move","input":{"type":"object","properties":{"by":{"type":"integer"}},"required":["by"],` +
			`"additionalProperties":false},"reply":{"type":"integer"}}`,
		`{"name":"new.name","schema":{"type":"object","properties":{}},"aliases":["old.name"]}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the manifest %s lacks %s", got, want)
		}
	}
}

// tagged has a tag that is for another type.
type tagged struct {
	Name string `minimum:"1"`
}

// A mistake in a registration ends the start with a message that names it.
func TestMistakesAreNamed(t *testing.T) {
	type none = struct{}
	nop := func(*guest.Tx[state], none) (none, error) { return none{}, nil }
	fresh := func() *guest.Service[state] { return guest.New[state]("svc") }
	for want, mistake := range map[string]func(){
		`event type guest_test.moved is registered twice`: func() { fresh().Events(moved{}, moved{}) },
		`event "moved" is registered twice`: func() {
			fresh().Events(moved{}, guest.Named(renamed{}, "moved"))
		},
		`event "a" is registered twice`: func() {
			fresh().Events(guest.Named(moved{}, "a"), guest.Named(renamed{}, "b", "a"))
		},
		`must be registered as a struct value`: func() { fresh().Events(&moved{}) },
		`command "x" is registered twice`: func() {
			s := fresh()
			guest.Command(s, "x", nop)
			guest.Command(s, "x", nop)
		},
		`command name "x y" must be`: func() { guest.Command(fresh(), "x y", nop) },
		`query name "" must be`: func() {
			guest.Query(fresh(), "", func(*guest.View[state], none) (none, error) { return none{}, nil })
		},
		`command x: json: interface {} has no JSON form`: func() {
			guest.Command(fresh(), "x", func(*guest.Tx[state], any) (none, error) { return none{}, nil })
		},
		`the state: field guest_test.closed.n is not exported`:    func() { guest.New[closed]("svc") },
		`event secret: field guest_test.closed.n is not exported`: func() { fresh().Events(secret{}) },
		`command x: json: json.RawMessage has a JSON form of its own`: func() {
			guest.Command(fresh(), "x", func(*guest.Tx[state], json.RawMessage) (none, error) { return none{}, nil })
		},
		`service svc: command x: json: field guest_test.tagged.Name: the tag minimum:"1" is for numbers`: func() {
			guest.Command(fresh(), "x", func(*guest.Tx[state], tagged) (none, error) { return none{}, nil })
		},
		`field struct { F func() }.F: func() has no JSON`: func() { guest.New[struct{ F func() }]("svc") },
		`the reply to command x: json: chan int has no JSON`: func() {
			guest.Command(fresh(), "x", func(*guest.Tx[state], none) (chan int, error) { return nil, nil })
		},
	} {
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, want) {
					t.Errorf("it says %q, want something with %q", got, want)
				}
			}()
			mistake()
		}()
	}
}

// The errors of handlers as the host receives them.
func TestErrorsOfHandlers(t *testing.T) {
	s := guest.New[state]("svc")
	for i, c := range []struct {
		fail func() error
		want string
	}{
		{func() error { return guest.Reject("no_money", "none left") }, "Reject no_money: none left"},
		{func() error {
			return fmt.Errorf("account 7: %w", guest.Reject("no_money", "none left"))
		}, "Reject no_money: none left"},
		{func() error { return errors.New("disk full") }, "Fault error: disk full"},
		{func() error { panic("boom") }, "Fault panic: boom"},
		{func() error { panic(fmt.Errorf("wrapped %w", errors.New("inner"))) }, "Fault panic: wrapped inner"},
		{func() error { panic(state{}) }, "Fault panic: a value of type guest_test.state"},
		{func() error { return errors.New(os.Args[len(os.Args)]) }, "Fault panic: runtime error: index out of range"},
		{func() error { return guest.Reject("Not good", "") }, `Fault panic: guest: the code "Not good" of a ` +
			`rejection is not 1 to 128 printable`},
		{func() error { return guest.Reject("", "") }, `Fault panic: guest: the code "" of a rejection`},
		{func() error { return guest.Reject(strings.Repeat("x", 129), "") }, `Fault panic: guest: the code "xxx`},
		{func() error { return guest.Reject("long", strings.Repeat("é", 4096)) }, "Reject long: éé"},
	} {
		guest.Command(s, "c"+strconv.Itoa(i), func(*guest.Tx[state], struct{}) (struct{}, error) {
			return struct{}{},
				c.fail()
		})
		exchange(s, abi.AppendOpen(nil, 0, 0, "k", nil))
		r, _, err := abi.DecodeResponse(exchange(s, command(0, uint16(i), "")))
		if err != nil {
			t.Fatal(err)
		}
		x, err := abi.DecodeRefusal(&r)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Kind.String() + " " + string(x.Code) + ": " + string(x.Message); !strings.HasPrefix(got, c.want) ||
			!utf8.ValidString(got) {
			t.Errorf("got %.200s, want %s", got, c.want)
		}
	}
}

// A body that does not fit is refused; the message names the member.
func TestABadBodyIsNamed(t *testing.T) {
	type in struct {
		Lines []struct{ Amount int }
		By    map[string]int
		When  time.Time
	}
	s := guest.New[state]("svc")
	guest.Command(s, "c", func(*guest.Tx[state], in) (struct{}, error) { return struct{}{}, nil })
	for body, want := range map[string]string{
		`{"Lines":[{"Amount":1},{"Amount":"2"}]}`: "json: Lines[1].Amount: value has another type than its field",
		`{"Lines":[{"Amount":1.5}]}`:              "json: Lines[0].Amount: number is not whole",
		`{"By":{"ada":true}}`:                     "json: By.ada: value has another type than its field",
		`{"When":"today"}`:                        `json: When: parsing time "today"`,
		`[]`:                                      "json: value has another type than its field",
		`null`:                                    "json: value has another type than its field",
		``:                                        "json: malformed",
		`{}`:                                      "json: Lines: the member is missing",
		`{"lines":[]}`:                            "json: lines: there is no such member",
		`{"Lines":[],"Lines":[]}`:                 "json: Lines: the member appears twice",
	} {
		exchange(s, abi.AppendOpen(nil, 0, 0, "k", nil))
		r, _, err := abi.DecodeResponse(exchange(s, command(0, 0, body)))
		if err != nil {
			t.Fatal(err)
		}
		x, err := abi.DecodeRefusal(&r)
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind != abi.RespReject || string(x.Code) != abi.CodeBadCommand ||
			!strings.HasPrefix(string(x.Message), want) {
			t.Errorf("%s: %v %s: %s; want %s", body, r.Kind, x.Code, x.Message, want)
		}
	}
}

// A command allocates memory for its event only.
func TestWhatACommandAllocates(t *testing.T) {
	s := guest.New[state]("svc").Events(moved{})
	guest.Command(s, "move", func(tx *guest.Tx[state], c moved) (state, error) {
		tx.Emit(c)
		return *tx.State(), nil
	})
	exchange(s, abi.AppendOpen(nil, 0, 0, "k", nil))
	request := command(0, 0, `{"by":1000}`)
	if got := say(t, s, request); got != `Event {"by":1000}, Reply {"n":1000}` {
		t.Fatal(got)
	}
	if n := testing.AllocsPerRun(100, func() { exchange(s, request) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// A handler's command and reply are not changed by later calls.
func TestCommandsAreNotShared(t *testing.T) {
	s := guest.New[state]("svc")
	var got []map[string][]int
	guest.Command(s, "keep", func(_ *guest.Tx[state], c map[string][]int) (map[string][]int, error) {
		got = append(got, c)
		return c, nil
	})
	exchange(s, abi.AppendOpen(nil, 0, 0, "k", nil))
	for _, body := range []string{`{"a":[1,2]}`, `{"a":[1,2]`, `{"b":[3]}`, `null`} {
		exchange(s, command(0, 0, body))
	}
	if text := fmt.Sprint(got); text != "[map[a:[1 2]] map[b:[3]] map[]]" {
		t.Error(text)
	}
}

type numbered[N any] struct{}

func (numbered[N]) Apply(*state) {}

// Events are found by their type, whether there are few or many.
func TestManyEventTypes(t *testing.T) {
	all := []guest.Event[state]{numbered[[0]int]{}, numbered[[1]int]{}, numbered[[2]int]{}, numbered[[3]int]{},
		numbered[[4]int]{},
		numbered[[5]int]{}, numbered[[6]int]{}, numbered[[7]int]{}, numbered[[8]int]{}, numbered[[9]int]{},
		numbered[[10]int]{},
		numbered[[11]int]{}, numbered[[12]int]{}, numbered[[13]int]{}, numbered[[14]int]{}, numbered[[15]int]{},
		numbered[[16]int]{}, numbered[[17]int]{}}
	for _, many := range []int{1, 16, 17, len(all)} {
		s := guest.New[state]("svc")
		for i, e := range all[:many] {
			s.Events(guest.Named(e, "e"+strconv.Itoa(i)))
		}
		for i, e := range all {
			if n, ok := kit.Of(s).EventNumber(e); ok != (i < many) || ok && int(n) != i {
				t.Errorf("event %d of %d has the number %d, %v", i, many, n, ok)
			}
		}
	}
}

func FuzzExchange(f *testing.F) {
	f.Add(abi.AppendQuery(command(0, 0, `{"by":2}`), 0, 0, 0, 0, nil))
	f.Add(abi.AppendSnapshotRequest(abi.AppendApply(nil, 0, 0, 1, 0, []byte(`{"by":1}`), nil), 0))
	f.Add(abi.AppendDescribe(abi.AppendDrop(abi.AppendOpen(nil, 3, 0, "k", []byte(`{}`)), 3)))
	f.Fuzz(func(t *testing.T, request []byte) {
		s := guest.New[state]("svc").Events(moved{})
		guest.Command(s, "move",
			func(tx *guest.Tx[state], c moved) (int, error) { tx.Emit(c); return tx.State().N, nil })
		guest.Query(s, "n", func(v *guest.View[state], _ struct{}) (int, error) { return v.State().N, nil })
		exchange(s, abi.AppendOpen(nil, 0, 0, "k", nil))
		for out := exchange(s, request); len(out) > 0; {
			_, rest, err := abi.DecodeResponse(out)
			if err != nil {
				t.Fatal(err)
			}
			out = rest
		}
	})
}

// Guests do not link large packages, which every guest would pay for. (They do link fmt and os:
// runtime/debug needs them, and its bound on the stack is worth three percent of the size.)
func TestGuestsStayLean(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "github.com/bulkhead-wasm/bulkhead/plugins/bank/wasm")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		switch {
		case dep == "encoding/json", dep == "net", dep == "regexp", dep == "text/template":
			t.Errorf("a guest links %s", dep)
		case strings.HasSuffix(dep, "/guest-sdk/internal/kit"):
			t.Error("a guest links the hooks of test kits")
		case strings.Contains(dep, ".") && !strings.HasPrefix(dep, "github.com/bulkhead-wasm/bulkhead/"):
			t.Errorf("a guest links the outside module of %s", dep)
		}
	}
}

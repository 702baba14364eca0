package guesttest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
)

// putV1 is put as it was stored first.
type putV1 struct {
	Text string `json:"text"`
}

// placed is a stored type with another name.
type placed struct{ N int }

func (e placed) Apply(b *box) { b.N += e.N }

// grown is a service with a past.
var grown = guest.New[box]("box").Events(put{}, hid{}, guest.Named(placed{}, "placed", "laid"))

func init() {
	guest.Upcast(grown, "put-1", func(old putV1) put { return put{N: len(old.Text), Name: old.Text} })
	guest.Command(grown, "put", func(tx *guest.Tx[box], c put) (int, error) { tx.Emit(c); return tx.State().N, nil })
	guest.Command(grown, "refuse",
		func(tx *guest.Tx[box], _ struct{}) (int, error) { return 0, guest.Reject("no", "no") })
}

func TestGivenJSON(t *testing.T) {
	guesttest.GivenJSON(t, grown, "k", "put-1", `{"text":"four"}`).
		AndJSON("laid", `{"N":3,"unknown":true}`).AndJSON("placed", `{}`).AndJSON("put", `{}`).And(put{N: 1}).
		When("put", put{N: 2}).Then(put{N: 2}).Reply(10).
		State(func(b *box) {
			if b.N != 10 || b.Counts["four"] != 4 {
				t.Errorf("%+v", b)
			}
		})
	for _, c := range []struct{ event, data, want string }{
		{"gone", `{}`, `does not know events of type "gone": keep the type, name it as an alias`},
		{"put", `{"n":}`, "is not JSON"},
		{"put", `{"n":"x"}`, `rebuilding the entity from 1 events: fault (bad_event): entity "k", version 1, event put`},
		{"hid", `{"N":1}`, ""},
	} {
		got := listen(t, func(t testing.TB) { guesttest.GivenJSON(t, grown, "k", c.event, c.data) })
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s %s: got %q, want %q", c.event, c.data, got, c.want)
		}
	}
	got := listen(t, func(t testing.TB) {
		guesttest.GivenJSON(t, grown, "k", "hid", `{"N":1}`).AndJSON("hid", `{"N":1}`)
	})
	if !strings.Contains(got, "the stored events of entity k: a snapshot after 1 events") {
		t.Errorf("a snapshot that loses something: %q", got)
	}
}

// sum is an earlier form of box.
type sum struct {
	Total int `json:"total"`
}

func TestGivenSnapshot(t *testing.T) {
	s := guest.New[box]("box").Events(put{}).StateSchema(5)
	guest.UpcastState(s, func(old sum) box { return box{N: old.Total} }, 3)
	guest.Command(s, "put", func(tx *guest.Tx[box], c put) (uint64, error) { tx.Emit(c); return tx.Version(), nil })
	var b box
	get := func(x *box) { b = *x }
	guesttest.GivenSnapshot(t, s, "k", 40, 3, `{"total":7}`).AndJSON("put", `{"n":1}`).
		When("put", put{N: 2}).Reply(uint64(42)).Then(put{N: 2}).When("put", put{}).Reply(uint64(43)).State(get)
	if b.N != 10 {
		t.Errorf("got %+v", b)
	}
	guesttest.GivenSnapshot(t, s, "k", 40, 5, `{"n":7,"counts":null}`).When("put", put{}).Reply(uint64(41)).State(get)
	if b.N != 7 {
		t.Errorf("got %+v", b)
	}
	for state, want := range map[string]string{
		`{"total":7,"more":1}`: `fault (bad_snapshot): entity "k", version 40, snapshot: `,
		`{"n":7}`:              `fault (bad_snapshot)`,
	} {
		got := listen(t, func(t testing.TB) { guesttest.GivenSnapshot(t, s, "k", 40, 3, state) })
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", state, got, want)
		}
	}
	got := listen(t, func(t testing.TB) { guesttest.GivenSnapshot(t, s, "k", 40, 4, `{}`) })
	if !strings.Contains(got, "does not take snapshots of state schema 4: its own is 5, and it has upcasters for [3]") {
		t.Errorf("got %q", got)
	}
}

func TestCapture(t *testing.T) {
	var reply int
	first, second := put{Name: "old"}, put{}
	c := guesttest.Given(t, grown, "k").When("put", put{N: 2}).ReplyAs(&reply).Emitted(&first)
	if reply != 2 || first != (put{N: 2}) {
		t.Errorf("got %d and %+v", reply, first)
	}
	var other hid
	for name, x := range map[string]struct {
		run  func(c *guesttest.Case[box])
		want string
	}{
		"too many":      {func(c *guesttest.Case[box]) { c.Emitted(&first, &second) }, "want 2 events"},
		"too few":       {func(c *guesttest.Case[box]) { c.Emitted() }, "want 0 events"},
		"another event": {func(c *guesttest.Case[box]) { c.Emitted(&other) }, "want event 0 to be hid"},
		"no event":      {func(c *guesttest.Case[box]) { c.Emitted(&reply) }, "int is not registered with Events"},
		"no pointer":    {func(c *guesttest.Case[box]) { c.ReplyAs(reply) }, "int is not a pointer"},
		"nil":           {func(c *guesttest.Case[box]) { c.ReplyAs((*int)(nil)) }, "*int is not a pointer to where"},
		"another form":  {func(c *guesttest.Case[box]) { c.ReplyAs(&first) }, "the reply 2 is no guesttest_test.put"},
		"rejected":      {func(c *guesttest.Case[box]) { c.When("refuse", nil).ReplyAs(&reply) }, "want a reply"},
		"none emitted":  {func(c *guesttest.Case[box]) { c.When("refuse", nil).Emitted() }, "want 0 events"},
	} {
		got := listen(t, func(t testing.TB) { x.run(guesttest.Given(t, grown, "k").When("put", put{N: 2})) })
		if !strings.Contains(got, x.want) {
			t.Errorf("%s: got %q, want %q", name, got, x.want)
		}
	}
	c.When("put", put{N: 3}).Emitted(&second).ReplyAs(&reply)
	if reply != 5 || second.N != 3 {
		t.Errorf("got %d and %+v", reply, second)
	}
}

// write makes a file of lines.
func write(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "lines.json")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestGivenExport(t *testing.T) {
	x := guesttest.GivenExport(t, grown, write(t,
		`{"kind":"command","log":"box","position":1,"key":"b","version":1,"type":"put","data":{"n":1},"events":1}`,
		`{"kind":"event","log":"box","position":1,"key":"b","version":1,"type":"put-1","data":{"text":"bb"}}`,
		`{"kind":"event","log":"box","position":2,"key":"a","version":1,"type":"put","data":{"n":7}}`,
		`{"position":3,"key":"b","version":3,"command":"put","data":{"n":1},"events":[`+
			`{"position":3,"version":2,"type":"laid","data":{"N":4}},{"position":4,"version":3,"type":"put","data":{}}]}`, ``))
	if got := x.Keys(); !slices.Equal(got, []string{"b", "a"}) {
		t.Errorf("the keys are %q", got)
	}
	x.Entity("b").When("put", put{N: 1}).Reply(7)
	x.Entity("a").When("put", put{N: 1}).Reply(8)

	const line = `{"kind":"event","log":"box","key":"a",`
	for name, c := range map[string]struct{ line, want string }{
		"unknown type": {line + `"version":1,"type":"gone"}`, `entity "a", version 1: the service does not know`},
		"no beginning": {line + `"version":2,"type":"put"}`, `entity "a", version 2: the events before it are not in ` +
			`the file: export without --after and --type; if a retention has deleted them, export with --snapshots`},
		"a gap": {line + `"version":1,"type":"put"}` + line + `"version":3,"type":"put"}`,
			`the event of version 2 must come first`},
		"unknown schema": {`{"kind":"snapshot","log":"box","key":"a","version":7,"state_schema":1,"data":{}}`,
			`entity "a", version 7: the service does not take snapshots of state schema 1`},
		"a late snapshot": {line + `"version":1,"type":"put"}{"kind":"snapshot","log":"box","key":"a","version":1}`,
			`entity "a": its snapshot comes after what it stands for`},
		"other service": {`{"kind":"event","log":"bank"}`, `it is of service "bank", and this is "box"`},
		"not JSON":      {line + `"version":1,"type":"put","data_base64":"AAAA"}`, `the data is not JSON`},
		"another file":  {`{"id":"1","type":"put"}`, `neither a line of journal export nor`},
		"cut":           {line + `"vers`, `line 1: unexpected EOF`},
		"nothing":       {``, `has no events`},
		"bad data":      {line + `"version":1,"type":"put","data":{"n":"x"}}`, `fault (bad_event): entity "a", version 1`},
	} {
		got := listen(t, func(t2 testing.TB) { guesttest.GivenExport(t2, grown, write(t, c.line)) })
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if got := listen(t, func(t testing.TB) { guesttest.GivenExport(t, grown, "missing") }); got == "" {
		t.Error("a file that is not there")
	}
	if got := listen(t, func(t2 testing.TB) {
		guesttest.GivenExport(t2, grown, write(t, line+`"version":1,"type":"put","data":{}}`)).Entity("z")
	}); !strings.Contains(got, `no entity "z"`) {
		t.Errorf("got %q", got)
	}
	lost := write(t, line+`"version":1,"type":"hid","data":{"N":1}}`, line+`"version":2,"type":"hid","data":{"N":1}}`)
	if got := listen(t, func(t testing.TB) { guesttest.GivenExport(t, grown, lost) }); !strings.Contains(got,
		"the stored events of entity a: a snapshot after 1 events") {
		t.Errorf("got %q", got)
	}
}

// diary has what its events were applied with.
type diary struct {
	Lines []string `json:"lines"`
}

// met is applied with its info.
type met struct {
	guest.Informed[diary]
	Whom string `json:"whom"`
}

func (e met) ApplyWith(d *diary, info guest.EventInfo) {
	by, _ := info.Metadata.Get("by")
	at := info.Time.Format("15:04:05.999999999")
	d.Lines = append(d.Lines, fmt.Sprintf("%s %d %s %s by %s", info.Key, info.Version, at, e.Whom, by))
}

var informed = guest.New[diary]("diary").StateSchema(7).Events(guest.Named(met{}, "met", "seen"))

func init() {
	guest.Command(informed, "meet", func(tx *guest.Tx[diary], whom string) (diary, error) {
		tx.EmitWith(met{Whom: whom}, guest.Metadata(nil).AppendPair("by", tx.CommandID()))
		return *tx.State(), nil
	})
}

// The events of a history have the times at which they were added, and their metadata.
func TestEventsAreAppliedWithTheirInfo(t *testing.T) {
	noon := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	var reply diary
	guesttest.Given(t, informed, "k", met{Whom: "Ada"}).
		At(noon).AndJSON("seen", `{"whom":"Grace"}`).
		At(noon.Add(time.Hour)).AndWith(met{Whom: "Edsger"}, guest.Metadata(nil).AppendPair("by", "me")).
		At(noon.Add(2*time.Hour)).ID("c1").When("meet", "Barbara").
		At(noon.Add(3*time.Hour)).ID("c2").When("meet", "Tony").Carries(0, "by", "c2").ReplyAs(&reply)
	if want := []string{"k 1 03:04:05 Ada by ", "k 2 12:00:00 Grace by ", "k 3 13:00:00 Edsger by me",
		"k 4 14:00:00 Barbara by c1", "k 5 15:00:00 Tony by c2"}; !slices.Equal(reply.Lines, want) {
		t.Errorf("got %q", reply.Lines)
	}
	if got := listen(t, func(t testing.TB) {
		guesttest.Given(t, informed, "k").AndWith(met{}, guest.Metadata("xx"))
	}); !strings.Contains(got, "the metadata of event guesttest_test.met") {
		t.Errorf("got %q", got)
	}
}

// An export has the times and metadata of events, and snapshots in place of those that were deleted.
func TestGivenExportWithSnapshots(t *testing.T) {
	x := guesttest.GivenExport(t, informed, write(t,
		`{"kind":"snapshot","log":"diary","key":"b","version":2,"state_schema":7,"data":{"lines":["x","y"]}}`,
		`{"kind":"snapshot","log":"diary","key":"c","version":9,"state_schema":7,"data":{"lines":["z"]}}`,
		`{"kind":"event","log":"diary","key":"b","version":2,"type":"gone","data":{}}`,
		`{"kind":"event","log":"diary","key":"b","version":3,"type":"seen","data":{"whom":"Ada"},`+
			`"metadata":{"by":"c0","tenant":"acme"},"emitted_metadata":{"by":"c0"},`+
			`"command_time":"2026-07-01T12:00:00.000000001Z"}`,
		`{"key":"a","version":1,"command_time":"2026-07-01T13:00:00Z","events":[`+
			`{"version":1,"type":"met","data":{"whom":"Eve"},"metadata":{"by":"c1"},"emitted_metadata":{"by":"c1"}}]}`))
	for key, want := range map[string][]string{
		"a": {"a 1 13:00:00 Eve by c1"},
		"b": {"x", "y", "b 3 12:00:00.000000001 Ada by c0"},
		"c": {"z"},
	} {
		x.Entity(key).State(func(d *diary) {
			if !slices.Equal(d.Lines, want) {
				t.Errorf("%s: got %q", key, d.Lines)
			}
		})
	}
	x.Entity("c").When("meet", "Eve").Then(met{Whom: "Eve"})
}

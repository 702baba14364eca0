package service

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

var sample = journal.Event{
	Log: "bank", Position: 42, Key: "alice", Version: 3, Type: "deposited", Data: []byte(`{"amount":100}`),
	CommandID: "c-1", CommandType: "deposit", Time: 1700000000123456789, Stamp: journal.Stamp{9, 8, 7},
}

var origin = journal.Stamp{1, 2, 3}

func TestCloudEvent(t *testing.T) {
	got := string(NewEvent("bank", origin, sample).Text(CloudEvent))
	want := `{"specversion":"1.0","id":"` + Cursor{Position: 42, Origin: origin, Stamp: sample.Stamp}.String() + `","source":"/services/bank","type":"deposited","subject":"alice",` +
		`"time":"2023-11-14T22:13:20.123456789Z","datacontenttype":"application/json","data":{"amount":100},` +
		`"entityversion":"3","position":"42","sequence":"00000000000000000042","commandid":"c-1","commandtype":"deposit"}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNativeEvent(t *testing.T) {
	e := sample
	e.Position, e.Version = math.MaxUint64, 1<<53+1
	e.Metadata = metadataOf("tenant", "acme", "X-Actor", "clerk \"7\"\n", "id", "mine", "", "", "tenant", "other",
		"bad", "\xff")
	got := string(NewEvent("bank", origin, e).Text(NativeEvent))
	want := `{"id":"` + Cursor{Position: math.MaxUint64, Origin: origin, Stamp: sample.Stamp}.String() + `","source":"/services/bank","type":"deposited","subject":"alice",` +
		`"time":"2023-11-14T22:13:20.123456789Z","datacontenttype":"application/json","data":{"amount":100},` +
		`"entityversion":9007199254740993,"position":18446744073709551615,"commandid":"c-1","commandtype":"deposit",` +
		`"metadata":{"tenant":"acme","X-Actor":"clerk \"7\"\u000a","id":"mine","bad":"\ufffd"}}`
	if got != strings.Replace(want, `\ufffd`, "\ufffd", 1) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e.Metadata = nil
	if got := string(NewEvent("bank", origin, e).Text(NativeEvent)); !strings.HasSuffix(got, `"commandtype":"deposit"}`) {
		t.Errorf("without metadata %s", got)
	}
}

func TestCloudEventData(t *testing.T) {
	for _, c := range []struct {
		name, contentType, data, want string
	}{
		{"nothing", "", "", ""},
		{"JSON", "application/json", `[1,"a"]`, `"data":[1,"a"]`},
		{"JSON with parameters", "Application/JSON; charset=utf-8", `1`, `"data":1`},
		{"another JSON", "TEXT/JSON", `null`, `"data":null`},
		{"a kind of JSON", "application/vnd.bank+json", `null`, `"data_base64":"bnVsbA=="`},
		{"line breaks", "", "{\n\t\"a\":\r\n 1}", `"data":{"a":1}`},
		{"not what it says", "", "{", `"data_base64":"ew=="`},
		{"not UTF-8", "", "\"\xff\"", `"data_base64":"Iv8i"`},
		{"JSON by chance", "text/plain", "12", `"data_base64":"MTI="`},
	} {
		e := sample
		e.ContentType, e.Data = c.contentType, []byte(c.data)
		event := NewEvent("bank", origin, e)
		got := string(event.Text(CloudEvent))
		if native := string(event.Text(NativeEvent)); !strings.Contains(native, c.want) || strings.Contains(native, `"data`) != strings.Contains(got, `"data`) {
			t.Errorf("%s: %s in the native form", c.name, native)
		}
		if !json.Valid([]byte(got)) || strings.ContainsAny(got, "\r\n") {
			t.Errorf("%s: %q is not JSON in one line", c.name, got)
		}
		if c.want == "" && strings.Contains(got, `"data`+`"`) || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s lacks %s", c.name, got, c.want)
		}
	}
}

func TestCloudEventText(t *testing.T) {
	e := sample
	e.Key = "a\"b\\c\x7f ü\u2028"
	e.CommandID = `"{}"`
	e.Metadata = abi.Metadata(nil).AppendPair("user", "x").AppendPair("traceparent", "00-ab").AppendPair("line",
		"a\nb\xff")
	var got struct {
		Subject, CommandID, User, TraceParent, Line, Metadata string
	}
	text := NewEvent("bank", origin, e).Text(CloudEvent)
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if got.Subject != e.Key || got.CommandID != `"{}"` || got.User != "x" || got.TraceParent != "00-ab" || got.Line != "" ||
		got.Metadata != `{"line":"a\u000ab�"}` {
		t.Errorf("got %+v", got)
	}
}

// TestAFormThatNobodyWantsIsNotEncoded: only the requested forms are encoded.
func TestAFormThatNobodyWantsIsNotEncoded(t *testing.T) {
	for form := range EventForm(eventForms) {
		e := new(Event)
		e.Init("bank", origin, sample, unbounded{})
		if share := e.Share(form); share.Bytes() != cap(e.Text(form)) {
			t.Errorf("%d bytes are shared, the text takes %d", share.Bytes(), cap(e.Text(form)))
		}
		if other := e.texts[1-form].Load(); other != nil {
			t.Errorf("the other form is there, too: %s", other.bytes)
		}
	}
}

// unbounded is memory without a bound.
type unbounded struct{}

func (unbounded) TryTake(int64) bool { return true }
func (unbounded) Give(int64)         {}

func FuzzTexts(f *testing.F) {
	f.Add("alice", "deposited", "application/json", []byte(`{"a":1}`), []byte{3, 0, 0, 0, 'a', 'b', 'c'}, uint64(1))
	f.Add("\xff", "", "text/plain", []byte("\n"), []byte(nil), uint64(1<<63))
	f.Fuzz(func(t *testing.T, key, typ, contentType string, data, metadata []byte, n uint64) {
		e := NewEvent("bank", origin, journal.Event{Position: journal.Position(n), Key: key,
			Version: journal.Version(n), Type: typ,
			ContentType: contentType, Data: data, Metadata: metadata, Time: journal.UnixNano(n)})
		held := 0
		for form := range EventForm(eventForms) {
			text := e.Text(form)
			held += len(text)
			if !json.Valid(text) || bytes.ContainsAny(text, "\r\n") {
				t.Errorf("not JSON in one line: %q", text)
			}
			var back struct {
				Data   json.RawMessage
				Base64 []byte `json:"data_base64"`
			}
			if err := json.Unmarshal(text, &back); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if back.Base64 != nil && !bytes.Equal(back.Base64, data) {
				t.Errorf("data changed: %q", back.Base64)
			}
		}
		if held += len(data) + len(metadata); e.Size() < int64(held) && len(typ)+len(key)+len(contentType) < 256 {
			t.Errorf("%d bytes of texts, data and metadata count as %d", held, e.Size())
		}
	})
}

func BenchmarkCloudEvent(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		e := NewEvent("bank", origin, sample)
		e.Text(CloudEvent)
	}
}

func BenchmarkCursor(b *testing.B) {
	c := NewEvent("bank", origin, sample).Cursor()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseCursor(c.String()); err != nil {
			b.Fatal(err)
		}
	}
}

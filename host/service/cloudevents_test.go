package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// cloudCase is an event, and what readers that know only CloudEvents find in it.
type cloudCase struct {
	Text       string            `json:"text"`
	ID         string            `json:"id"`
	Type       string            `json:"type"`
	Subject    string            `json:"subject"`
	Time       time.Time         `json:"time"`
	Base64     []byte            `json:"base64"` // its data
	Extensions map[string]string `json:"extensions"`
	Metadata   map[string]string `json:"metadata"` // the pairs that are not extensions; nil: none
}

// manyEvents are events of all kinds.
func manyEvents() []*Event {
	var all []*Event
	add := func(change func(e *journal.Event)) {
		e := sample
		change(&e)
		all = append(all, NewEvent("bank", origin, e))
	}
	for _, n := range []uint64{1, math.MaxInt32, math.MaxInt32 + 1, 1<<53 - 1, 1<<53 + 1, math.MaxInt64,
		math.MaxUint64} {
		add(func(e *journal.Event) { e.Position, e.Version = journal.Position(n), journal.Version(n) })
	}
	for _, data := range []string{"", "null", "1", `"x"`, `{"n":18446744073709551615}`, "[1,\r\n2]", "\xff", "plain"} {
		add(func(e *journal.Event) { e.Data = []byte(data) })
		add(func(e *journal.Event) { e.Data, e.ContentType = []byte(data), "text/plain" })
		add(func(e *journal.Event) {
			e.Data, e.ContentType = []byte(data), "application/vnd.bank+json; charset=utf-8"
		})
	}
	for _, key := range []string{"alice", "ü/\u2028\"\\", strings.Repeat("k", 256)} {
		add(func(e *journal.Event) { e.Key = key })
	}
	for _, at := range []time.Time{time.Unix(0, 1), time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2262, 4, 11, 0, 0, 0, 0, time.UTC)} {
		add(func(e *journal.Event) { e.Time = journal.UnixNano(at.UnixNano()) })
	}
	for _, pairs := range manyPairs() {
		add(func(e *journal.Event) { e.Metadata = metadataOf(pairs...) })
	}
	for _, name := range noAttributes { // each beside one that can be an attribute
		add(func(e *journal.Event) { e.Metadata = metadataOf(name, "mine", "tenant", "acme") })
	}
	return all
}

// noAttributes are names that a pair of metadata may have, but an attribute may not: see takenNames.
var noAttributes = strings.Fields(`specversion id source type subject time datacontenttype dataschema data
	entityversion position sequence sequencetype commandid commandtype metadata schemaurl datacontentencoding validate emit`)

func manyPairs() [][]string {
	long := strings.Repeat("a", maxAttributeName)
	all := [][]string{
		{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate", "x=y"},
		{"tenant", "acme", "tenant", "other", "Tenant", "ACME"},
		{"data_base64", "AA==", "Specversion", "0.3", "constructor", "x", "tostring", "x", "hasownproperty", "x",
			"prototype", "x", "inspect", "x"},
		{"a", "", "0", "1", "007", "bond", "partitionkey", "p", "dataref", "/x", "sampledrate", "30", "__proto__", "x",
			"toJSON", "x"},
		{long, "fits", long + "a", "does not", "a b", "x", "a\"b\\c", "\"\\", "ü", "ü"},
		{"control", "a\x00b\x1f\x7f\u0085", "line", "a\r\nb\u2028", "none", "\uffff\ufdd0\U0001fffe", "emoji",
			"\U0001f600", "bad", "\xff\xc3", "\xff", "no name", "\xfe", "nor this"},
		{"", "", "kept", "by the host", "kept", "twice"},
		{"big", strings.Repeat("\x01\"", 8<<10)},
	}
	for i := range 1000 {
		all[0] = append(all[0], fmt.Sprint("n", i%900), fmt.Sprint(i))
	}
	return all
}

func metadataOf(pairs ...string) (m abi.Metadata) {
	for ; len(pairs) > 1; pairs = pairs[2:] {
		m = m.AppendPair(pairs[0], pairs[1])
	}
	return m
}

// cloudCases says for each event what its text must contain.
func cloudCases(t *testing.T) []cloudCase {
	var all []cloudCase
	for _, e := range manyEvents() {
		c := cloudCase{
			Text: string(e.Text(CloudEvent)), ID: e.Cursor().String(), Type: e.Type, Subject: e.Key,
			Time: time.Unix(0, int64(e.Time)).UTC(), Base64: e.Data,
			Extensions: map[string]string{
				"position": fmt.Sprint(uint64(e.Position)), "sequence": fmt.Sprintf("%020d", uint64(e.Position)),
				"entityversion": fmt.Sprint(uint64(e.Version)), "commandid": string(e.CommandID),
				"commandtype": e.CommandType,
			},
		}
		for name, value := range Pairs(e.Metadata) {
			text := strings.ToValidUTF8(string(value), "\ufffd")
			if strings.Contains(string(value), "\xff\xc3") { // each invalid byte separately
				text = "\ufffd\ufffd"
			}
			if len(name) <= 20 && strings.Trim(string(name), "abcdefghijklmnopqrstuvwxyz0123456789") == "" &&
				!slices.Contains(noAttributes, string(name)) &&
				text == string(value) && !strings.ContainsFunc(text, func(r rune) bool { return !inAttributes(r) }) {
				c.Extensions[string(name)] = text
				continue
			}
			if c.Metadata == nil {
				c.Metadata = map[string]string{}
			}
			c.Metadata[string(name)] = text
		}
		all = append(all, c)
	}
	return all
}

// TestTheGoSDKReadsEveryEvent: for any metadata of a client or a guest, and however long a log becomes,
// readers that do not know Bulkhead can read the event.
func TestTheGoSDKReadsEveryEvent(t *testing.T) {
	for _, c := range cloudCases(t) {
		var e cloudevents.Event
		if err := json.Unmarshal([]byte(c.Text), &e); err != nil {
			t.Errorf("%v: %.300s", err, c.Text)
			continue
		}
		if err := e.Validate(); err != nil {
			t.Errorf("%v: %.300s", err, c.Text)
		}
		if e.ID() != c.ID || e.Type() != c.Type || e.Subject() != c.Subject || !e.Time().Equal(c.Time) ||
			e.Source() != "/services/bank" || e.SpecVersion() != "1.0" {
			t.Errorf("got %s of %.300s", e, c.Text)
		}
		// The SDK treats null as no data, and removes line breaks from JSON.
		if got := string(e.Data()); got != string(c.Base64) && got != strings.Join(strings.Fields(string(c.Base64)),
			"") && (got != "" || string(c.Base64) != "null") {
			t.Errorf("data %q became %q", c.Base64, got)
		}
		got := map[string]string{}
		for name, value := range e.Extensions() {
			got[name] = fmt.Sprint(value)
		}
		var metadata map[string]string
		if text, ok := got["metadata"]; ok {
			if err := json.Unmarshal([]byte(text), &metadata); err != nil {
				t.Errorf("metadata: %v: %.300s", err, text)
			}
			delete(got, "metadata")
		}
		if !maps.Equal(metadata, c.Metadata) || (metadata == nil) != (c.Metadata == nil) {
			t.Errorf("metadata %.300q, want %.300q", metadata, c.Metadata)
		}
		if !maps.Equal(got, c.Extensions) {
			t.Errorf("extensions %.300q, want %.300q", got, c.Extensions)
		}
	}
}

// TestTheNativeFormHasEverything: it has what a CloudEvent has, but is not one: numbers are numbers, and all
// metadata is in one object.
func TestTheNativeFormHasEverything(t *testing.T) {
	cases := cloudCases(t)
	for i, e := range manyEvents() {
		c, text := cases[i], e.Text(NativeEvent)
		var got map[string]any
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&got); err != nil {
			t.Fatalf("%v: %.300s", err, text)
		}
		want := map[string]any{
			"id": c.ID, "source": "/services/bank", "type": c.Type, "subject": c.Subject,
			"time": c.Time.Format(time.RFC3339Nano), "datacontenttype": e.ContentType,
			"entityversion": json.Number(fmt.Sprint(uint64(e.Version))),
			"position":      json.Number(fmt.Sprint(uint64(e.Position))),
			"commandid":     string(e.CommandID), "commandtype": e.CommandType,
		}
		var cloud map[string]any // data is equal in both forms: see TestCloudEventData
		d = json.NewDecoder(strings.NewReader(c.Text))
		d.UseNumber()
		if err := d.Decode(&cloud); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"data", "data_base64"} {
			if value, ok := cloud[name]; ok {
				want[name] = value
			}
		}
		pairs := map[string]any{}
		for name, value := range c.Metadata {
			pairs[name] = value
		}
		for name, value := range c.Extensions {
			if !slices.Contains(noAttributes, name) {
				pairs[name] = value
			}
		}
		if len(pairs) > 0 {
			want["metadata"] = pairs
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %.600v\nwant %.600v", got, want)
		}
	}
}

// FuzzMetadataInCloudEvents: for any metadata, the SDK reads the event, no name is repeated, and each pair is
// either an extension or in the extension metadata. The native form has the same pairs in one object.
func FuzzMetadataInCloudEvents(f *testing.F) {
	for _, pairs := range manyPairs() {
		f.Add([]byte(metadataOf(pairs...)))
	}
	f.Add([]byte{1, 0, 9})
	f.Fuzz(func(t *testing.T, metadata []byte) {
		e := sample
		e.Metadata = metadata
		text := NewEvent("bank", origin, e).Text(CloudEvent)
		var got cloudevents.Event
		if err := json.Unmarshal(text, &got); err != nil || got.Validate() != nil {
			t.Fatalf("%v, %v: %q", err, got.Validate(), text)
		}
		attributes := 0
		for d := json.NewDecoder(strings.NewReader(string(text))); d.More() || d.InputOffset() == 0; {
			name, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			if name == json.Delim('{') {
				continue
			}
			attributes++
			var value json.RawMessage
			if err := d.Decode(&value); err != nil {
				t.Fatal(err)
			}
		}
		// specversion, id, source, type, subject, time and datacontenttype are not extensions, nor is data
		const others = 7
		if want := others + 1 + len(got.Extensions()); attributes != want {
			t.Errorf("%d members, %d are expected: %q", attributes, want, text)
		}
		pairs := 0
		for range Pairs(metadata) {
			pairs++
		}
		all := map[string]string{}
		for name, value := range got.Extensions() {
			if !slices.Contains(noAttributes, name) {
				all[name] = fmt.Sprint(value)
			}
		}
		if text, ok := got.Extensions()["metadata"].(string); ok {
			if err := json.Unmarshal([]byte(text), &all); err != nil {
				t.Fatalf("%v: %q", err, text)
			}
		}
		if len(all) != pairs {
			t.Errorf("%d pairs of %d: %q", len(all), pairs, text)
		}
		native := struct{ Metadata map[string]string }{}
		if err := json.Unmarshal(NewEvent("bank", origin, e).Text(NativeEvent), &native); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(native.Metadata, all) && pairs > 0 {
			t.Errorf("metadata %q in the native form, %q in a CloudEvent", native.Metadata, all)
		}
	})
}

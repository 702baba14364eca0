package client

import (
	"encoding/json"
	"slices"
	"testing"
)

// Decoding and encoding an event does not change its text, even if its data is not JSON or looks like it.
func TestEventText(t *testing.T) {
	const head = `{"id":"c","source":"/services/bank","type":"deposited","subject":"al\"ice","time":"2026-01-02T03:04:05.000000006Z",`
	const tail = `"entityversion":9007199254740993,"position":18446744073709551615,"commandid":"c-1","commandtype":"deposit",` +
		`"metadata":{"tenant":"acme","X-Actor":"a\u000ab"}}`
	for data, want := range map[string]string{
		`"datacontenttype":"application/json","data":{"html":"<b>&"},`:       `{"html":"<b>&"}`,
		`"datacontenttype":"application/json","data_base64":"/w==",`:         "\xff",
		`"datacontenttype":"application/octet-stream","data_base64":"e30=",`: "{}",
		`"datacontenttype":"application/json",`:                              "",
		`"datacontenttype":"application/problem+json","data":null,`:          "null",
	} {
		text := []byte(head + data + tail)
		kept := slices.Clone(text)
		var e Event
		if err := json.Unmarshal(text, &e); err != nil || string(e.Data) != want {
			t.Errorf("%s: data %q, %v", text, e.Data, err)
			continue
		}
		clear(text) // the event keeps no reference to it
		again, err := e.MarshalJSON()
		if err != nil || string(again) != string(kept)+"\n" {
			t.Errorf("%s became %s, %v", kept, again, err)
		}
	}
	var e Event
	if err := json.Unmarshal([]byte(`{"position":-1}`), &e); err == nil {
		t.Errorf("taken for %+v", e)
	}
}

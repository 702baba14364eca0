package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

const (
	nativeText = `{"id":"c","source":"/services/bank","type":"deposited","subject":"al\"ice","time":"2026-01-02T03:04:05.000000006Z","datacontenttype":"application/json",` +
		`"data":{"n":18446744073709551615},"entityversion":9007199254740993,"position":18446744073709551615,"commandid":"c-1","commandtype":"deposit",` +
		`"metadata":{"tenant":"acme","position":"7","X-Actor":"a\u000ab"}}`
	cloudText = `{"specversion":"1.0","id":"c","source":"/services/bank","type":"deposited","subject":"al\"ice","time":"2026-01-02T03:04:05.000000006Z","datacontenttype":"application/json",` +
		`"data":{"n":18446744073709551615},"entityversion":"9007199254740993","position":"18446744073709551615","sequence":"18446744073709551615","commandid":"c-1","commandtype":"deposit",` +
		`"tenant":"acme","metadata":"{\"position\":\"7\",\"X-Actor\":\"a\\nb\"}"}`
)

// pairsOf are the pairs of an event's metadata.
func pairsOf(e *Event) map[string]string {
	all := map[string]string{}
	for name, value := range service.Pairs(abi.Metadata(e.Metadata)) {
		all[string(name)] = string(value)
	}
	return all
}

// An event is the same in either form, to the last digit.
func TestEventsInBothForms(t *testing.T) {
	native, err := DecodeEvent([]byte(nativeText))
	if err != nil {
		t.Fatal(err)
	}
	cloud, err := DecodeCloudEvent([]byte("\n " + cloudText + " "))
	if err != nil {
		t.Fatal(err)
	}
	for form, e := range map[string]Event{"native": native, "cloud": cloud} {
		if e.Position != math.MaxUint64 || e.EntityVersion != 1<<53+1 || e.Subject != `al"ice` || string(e.Body()) != `{"n":18446744073709551615}` || !e.Time.Equal(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)) ||
			!maps.Equal(pairsOf(&e), map[string]string{"tenant": "acme", "position": "7", "X-Actor": "a\nb"}) {
			t.Errorf("%s: %+v", form, e)
		}
		if text, err := json.Marshal(&e); err != nil || string(text) != nativeText {
			t.Errorf("%s: encoded it is %s, %v", form, text, err)
		}
	}
	none, err := DecodeEvent([]byte(`{"id":"c","position":1,"data":null,"metadata":null}`))
	if err != nil || none.Metadata != nil || string(none.Data) != "null" {
		t.Errorf("%+v, %v", none, err)
	}
}

// One form is never mistaken for the other, and other texts are refused.
func TestEventsOfAnotherForm(t *testing.T) {
	for _, text := range []string{cloudText, `{"position":1e3}`, `{"position":-1}`, `{"position":18446744073709551616}`, `{"metadata":{"a":1}}`, `{"metadata":{"a":"1","a":"2"}}`, `{"metadata":"{}"}`, "[]", ""} {
		if e, err := DecodeEvent([]byte(text)); err == nil {
			t.Errorf("%s is taken for %+v", text, e)
		}
	}
	for _, text := range []string{nativeText, "null", "{}", "[]", "", `{"specversion":"0.3"}`, `{"specversion":"1.0","position":1}`, `{"specversion":"1.0","tenant":1}`, `{"specversion":"1.0","metadata":"["}`, `{"specversion":"1.0","metadata":{}}`,
		`{"specversion":"1.0","Tenant":"acme"}`, `{"specversion":"1.0","":"acme"}`, `{"specversion":"1.0","a":"1","a":"2"}`, `{"specversion":"1.0","a":"1","metadata":"{\"a\":\"2\"}"}`} {
		if e, err := DecodeCloudEvent([]byte(text)); err == nil {
			t.Errorf("%s is taken for %+v", text, e)
		}
	}
}

func FuzzDecodeEvent(f *testing.F) {
	for _, text := range []string{nativeText, cloudText, "null", `{"specversion":"1.0","a":"\ud800","metadata":"{\"b\":\"\"}"}`, ` {"specversion":"1.0"} `, `{"data":[{}],"data_base64":"AA=="}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, decode := range []func([]byte) (Event, error){DecodeEvent, DecodeCloudEvent} {
			e, err := decode(text)
			if err != nil {
				continue
			}
			if e.Time.Year() < 0 || e.Time.Year() > 9999 {
				continue // it has no text
			}
			native, err := json.Marshal(&e)
			if err != nil {
				if _, ok := err.(*json.MarshalerError); ok {
					continue // a time zone that has no text
				}
				t.Fatal(err)
			}
			again, err := DecodeEvent(native)
			if err != nil || fmt.Sprint(pairsOf(&again)) != fmt.Sprint(pairsOf(&e)) || again.Position != e.Position ||
				again.EntityVersion != e.EntityVersion {
				t.Errorf("%s became %s, %v", text, native, err)
			}
		}
	})
}

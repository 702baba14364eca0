package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

func FuzzClientMessage(f *testing.F) {
	f.Add([]byte(`{"op":"command","id":"1","service":"bank","key":"k","type":"t","data":{"a":[1]},"expected_version":3,"metadata":{"a":"b"},"timeout_ms":-1}`))
	f.Add([]byte(`{"op":"subscribe","id":"s","from":"end","types":["a"],"keys":["b"],"credits":18446744073709551615}`))
	f.Add([]byte(`{"op":"query","data_base64":"AA=="}`))
	f.Add([]byte("{\"op\":\"\xff\"}"))
	f.Add([]byte(`{"OP":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeClientMessage(b)
		if err != nil {
			if k := service.KindOf(err); k != service.KindInvalid && k != service.KindTooLarge {
				t.Fatalf("kind %s: %v", k, err)
			}
			return
		}
		if !utf8.Valid(b) || len(m.ID) > MaxStreamID || m.MetadataOf().Valid() != nil || len(m.Data) > 0 &&
			!json.Valid(m.Data) {
			t.Fatalf("%q is %+v", b, m)
		}
		text, err := json.Marshal(&m)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if _, err := DecodeClientMessage(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	})
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{`abc`, `"abc"`, `"a\"b\\"`, `"a\x"`, `"`, `""`, `"a"b`, "\"\xff\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseIdempotencyKey(s)
		if err != nil {
			if service.KindOf(err) != service.KindInvalid {
				t.Fatal(err)
			}
			return
		}
		if checked, err := service.ParseCommandID(string(id)); err != nil || checked != id {
			t.Fatalf("%q is %q: %v", s, id, err)
		}
		if again, err := ParseIdempotencyKey(FormatIdempotencyKey(id)); err != nil || again != id {
			t.Fatalf("%q comes back as %q: %v", id, again, err)
		}
	})
}

func FuzzIfMatch(f *testing.F) {
	for _, s := range []string{`"7"`, `7`, `W/"7"`, `"+7"`, `"18446744073709551616"`, `"`, `""`, `"7", "8"`, `*`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseIfMatch(s)
		if err != nil {
			if service.KindOf(err) != service.KindInvalid {
				t.Fatal(err)
			}
			return
		}
		if again, err := ParseIfMatch(FormatETag(v)); err != nil || again != v {
			t.Fatalf("%d comes back as %d: %v", v, again, err)
		}
	})
}

func FuzzDeadline(f *testing.F) {
	for _, s := range []string{"0", "-1", "1500", "9223372036854775807", "1e3", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDeadline(s); err == nil && (d < 0 || d > maxDeadline) {
			t.Fatalf("%q is %s", s, d)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"a":"b","c":"\u00e9\ud83d\ude00"}`))
	f.Add([]byte(`{"a":"\ud800"}`))
	f.Add([]byte(`{"a":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMetadata(b)
		if err != nil {
			return
		}
		if m.Valid() != nil || len(m) > abi.MaxMetadataSize {
			t.Fatalf("%q is %q", b, m)
		}
		text, err := Metadata(m).MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseMetadata(text); err != nil || string(again) != string(m) {
			t.Fatalf("%q comes back as %q: %v", m, again, err)
		}
	})
}

func FuzzTraceparent(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Fuzz(func(t *testing.T, s string) {
		if ValidTraceparent(s) && (len(s) < 55 || len(s) > 255 || !utf8.ValidString(s)) {
			t.Fatalf("%q", s)
		}
	})
}

// What a guest wrote cannot break out of the answer that contains it.
func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"a":1}`), "k", "id")
	f.Add([]byte(`1}`), "\xff\"", "\\")
	f.Fuzz(func(t *testing.T, data []byte, key, id string) {
		r := service.Reply{Service: "s", Key: service.Key(key), Data: data, Version: 5}
		text := whole(CommandReplyText(nil, id, &r))
		var m ServerMessage
		if err := json.Unmarshal(text, &m); err != nil || !utf8.Valid(text) || m.Version != 5 || m.Op != OpReply {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func whole(p Pieces) []byte { return p.Append(nil) }

// A large message means the same as a small one, but errors may have other texts.
func FuzzLargeMessage(f *testing.F) {
	for _, text := range []string{
		`{"op":"command","id":"1","service":"bank","key":"k","type":"t","data":{"a":[1,"}\\"]}}`,
		` { "id" : "1" , "data" : 1 , "data" : [ ] , "op" : "query" } `, `{"data_base64":"aGVsbG8=","op":"command"}`,
		`{"data_base64":"aGVs\/G8\u002b\n","op":"command"}`, `{"data_base64":"\"","id":"x"}`, `{"data_base64":null}`, `{"data_base64":5}`,
		`{"data":null}`, `null`, `{}`, `[]`, `"x"`, `7`, `{"op":`, `{"nothing":1}`, `{"Data":1}`, `{"data":1}{}`, "{\"data\":\"\\u0041\"}", "{\"k\":\"\xff\"}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want, wrong := decodeClientMessage(bytes.Clone(b), len(b))
		got, err := decodeClientMessage(bytes.Clone(b), 0)
		if (err == nil) != (wrong == nil) {
			t.Fatalf("%q: large %v, small %v", b, err, wrong)
		}
		got.keeps = want.keeps
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: large %+v, small %+v", b, got, want)
		}
		MessageID(b)
	})
}

// For any data, the pieces have the announced length, and decode to the data.
func FuzzPieces(f *testing.F) {
	f.Add([]byte("x"), uint8(0))
	f.Add(bytes.Repeat([]byte("[1,\r\n2]"), 10_000), uint8(1))
	f.Add(bytes.Repeat([]byte{0, 1, 0xff}, 17_001), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, form uint8) {
		form %= 3
		inner := Around([]byte("<"), data, Form(form), []byte(">"))
		p := inner.Within([]byte("("), []byte(")"))
		want := data
		switch Form(form) {
		case Base64:
			want = base64.StdEncoding.AppendEncode(nil, data)
		case OneLine:
			want = bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\n"), []byte(" ")), []byte("\r"), []byte(" "))
		}
		got := p.Append(nil)
		if string(got) != "(<"+string(want)+">)" || len(got) != p.Len() {
			t.Fatalf("%d bytes in form %d become %d, said were %d", len(data), form, len(got), p.Len())
		}
	})
}

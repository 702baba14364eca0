package abi_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/abi/abitest"
)

// canonical encodes a decoded frame and decodes it again: the fields must be the same. Bytes that
// an encoder has made must be the same too; see TestGoldenVectors.
func canonical(t *testing.T, kind abitest.Kind, frame []byte) {
	f, err := abitest.Decode(kind, frame)
	if err != nil {
		if abitest.ErrorName(err) == "" {
			t.Fatalf("%s: an error that is not a DecodeError: %v", kind, err)
		}
		return
	}
	b, err := abitest.Encode(kind, f)
	if err != nil {
		t.Fatalf("%s: what was decoded cannot be encoded: %v", kind, err)
	}
	again, err := abitest.Decode(kind, b)
	if err != nil {
		t.Fatalf("%s: what was encoded cannot be decoded: %v", kind, err)
	}
	// Header fields that a kind does not use are lost.
	earlier := kind == abitest.Open && f.Snapshot != nil && f.Flags&abi.FlagEarlier != 0
	f.Flags = 0
	if earlier {
		f.Flags = abi.FlagSnapshot | abi.FlagEarlier
	} else {
		again.Flags = 0
	}
	switch kind {
	case abitest.Open:
		f.Time = 0
		if !earlier {
			f.Type = 0
		}
	case abitest.SnapshotRequest, abitest.Drop:
		f.Type, f.Version, f.Time = 0, 0, 0
	case abitest.Describe:
		f.Type, f.Version, f.Time, f.Slot = 0, 0, 0, 0
	case abitest.Event:
		f.Aux = 0
	case abitest.Reply, abitest.Reject, abitest.Fault, abitest.Snapshot, abitest.Description, abitest.Log:
		f.Type = 0
	}
	if !reflect.DeepEqual(f, again) {
		t.Fatalf("%s:\nfirst  %+v\nsecond %+v", kind, f, again)
	}
	once, err := abitest.Encode(kind, again)
	if err != nil || !bytes.Equal(once, b) {
		t.Fatalf("%s: encoding is not stable:\n%x\n%x", kind, b, once)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, b := range goldenBytes(f) {
		f.Add(b)
	}
	kinds := map[abi.RequestKind]abitest.Kind{
		abi.ReqOpen: abitest.Open, abi.ReqApply: abitest.Apply, abi.ReqCommand: abitest.Command,
		abi.ReqQuery:    abitest.Query,
		abi.ReqSnapshot: abitest.SnapshotRequest, abi.ReqDrop: abitest.Drop, abi.ReqDescribe: abitest.Describe,
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = exactly(b)
		decodeAll(t, b)
		for len(b) > 0 {
			r, rest, err := abi.DecodeRequest(b)
			if err != nil {
				return
			}
			if kind, ok := kinds[r.Kind]; ok {
				canonical(t, kind, b[:len(b)-len(rest)])
			}
			b = rest
		}
	})
}

func FuzzDecodeResponse(f *testing.F) {
	for _, b := range goldenBytes(f) {
		f.Add(b)
	}
	kinds := map[abi.ResponseKind]abitest.Kind{
		abi.RespEvent: abitest.Event, abi.RespReply: abitest.Reply, abi.RespReject: abitest.Reject,
		abi.RespFault:    abitest.Fault,
		abi.RespSnapshot: abitest.Snapshot, abi.RespDescription: abitest.Description, abi.RespLog: abitest.Log,
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = exactly(b)
		decodeAll(t, b)
		for len(b) > 0 {
			r, rest, err := abi.DecodeResponse(b)
			if err != nil {
				return
			}
			if kind, ok := kinds[r.Kind]; ok {
				canonical(t, kind, b[:len(b)-len(rest)])
			}
			b = rest
		}
	})
}

// FuzzPayload gives the payload decoders bytes that no frame decoder has checked.
func FuzzPayload(f *testing.F) {
	for _, b := range goldenBytes(f) {
		if len(b) > abi.RequestHeaderSize {
			f.Add(uint8(1), b[abi.RequestHeaderSize:])
		}
	}
	f.Fuzz(func(t *testing.T, flags uint8, payload []byte) {
		payload = exactly(payload)
		req := abi.Request{Flags: flags, Payload: payload}
		resp := abi.Response{Flags: flags, Payload: payload}
		o, err := abi.DecodeOpen(&req)
		if err == nil && (len(o.Key) > abi.MaxKeySize || (o.Snapshot != nil) != (flags&abi.FlagSnapshot != 0)) {
			t.Fatalf("open: %+v", o)
		}
		if a, err := abi.DecodeApply(&req); err == nil && 8+len(a.Body)+len(a.Metadata) > len(payload) {
			t.Fatalf("apply: %+v", a)
		}
		if c, err := abi.DecodeCommand(&req); err == nil && 32+len(c.ID)+len(c.Metadata)+len(c.Body) > len(payload) {
			t.Fatalf("command: %+v", c)
		}
		if q, err := abi.DecodeQuery(&req); err == nil && 8+len(q.Body) > len(payload) {
			t.Fatalf("query: %+v", q)
		}
		if e, err := abi.DecodeEvent(&resp); err == nil && 8+len(e.Body)+len(e.Metadata) > len(payload) {
			t.Fatalf("event: %+v", e)
		}
		if b, err := abi.DecodeBody(&resp); err == nil && 8+len(b) > len(payload) {
			t.Fatalf("body: %x", b)
		}
		if x, err := abi.DecodeRefusal(&resp); err == nil && (len(x.Code) > abi.MaxCodeSize ||
			len(x.Message) > abi.MaxMessageSize) {
			t.Fatalf("refusal: %+v", x)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(abi.Metadata(nil).AppendPair("a", "b").AppendPair("", "")))
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		b = exactly(b)
		decodeAll(t, b)
		if abi.Metadata(b).Valid() == nil {
			canonical(t, abitest.Metadata, b)
			var again abi.Metadata
			for m := abi.Metadata(b); ; {
				name, value, rest, ok := m.Next()
				if !ok {
					break
				}
				again, m = again.AppendPair(string(name), string(value)), rest
			}
			if !bytes.Equal(again, b) {
				t.Fatalf("re-encoded %x, was %x", again, b)
			}
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add(uint32(7), uint16(1), uint64(3), uint64(4), "id", []byte("meta"), []byte("body"), []byte(nil))
	f.Fuzz(func(t *testing.T, slot uint32, typ uint16, version, time uint64, text string, one, two, seed []byte) {
		if len(text) > abi.MaxCommandIDSize || len(one) > abi.MaxMetadataSize {
			return
		}
		var s [abi.SeedSize]byte
		copy(s[:], seed)
		r, rest, err := abi.DecodeRequest(abi.AppendCommand(nil, slot, typ, version, time, &s, text, one, two))
		if err != nil || len(rest) != 0 || r.Slot != slot || r.Type != typ || r.Version != version || r.Time != time {
			t.Fatalf("command header %+v, %v", r, err)
		}
		c, err := abi.DecodeCommand(&r)
		if err != nil || c.Seed != s || string(c.ID) != text || !bytes.Equal(c.Metadata, one) ||
			!bytes.Equal(c.Body, two) {
			t.Fatalf("command %+v, %v", c, err)
		}
		r, _, err = abi.DecodeRequest(abi.AppendOpen(nil, slot, version, text, two))
		if err != nil {
			t.Fatal(err)
		}
		o, err := abi.DecodeOpen(&r)
		if err != nil || string(o.Key) != text || !bytes.Equal(o.Snapshot, two) || (o.Snapshot == nil) != (two == nil) {
			t.Fatalf("open %+v, %v", o, err)
		}
		e, _, err := abi.DecodeResponse(abi.AppendEvent(nil, slot, 5, typ, two, one))
		if err != nil || e.Slot != slot || e.Index != 5 || e.Type != typ {
			t.Fatalf("event header %+v, %v", e, err)
		}
		ev, err := abi.DecodeEvent(&e)
		if err != nil || !bytes.Equal(ev.Body, two) || !bytes.Equal(ev.Metadata, one) {
			t.Fatalf("event %+v, %v", ev, err)
		}
	})
}

// wireManifest is the manifest's JSON as described in SPEC.md.
type wireManifest struct {
	ABI          int        `json:"abi"`
	Service      string     `json:"service"`
	Version      string     `json:"version"`
	SDK          string     `json:"sdk"`
	Features     []string   `json:"features"`
	StateSchema  uint32     `json:"state_schema"`
	Encoding     string     `json:"encoding"`
	Commands     []wireType `json:"commands"`
	Queries      []wireType `json:"queries"`
	Events       []wireType `json:"events"`
	Capabilities []string   `json:"capabilities"`
	Earlier      []uint32   `json:"earlier_schemas"`
}

type wireType struct {
	Name     string          `json:"name"`
	Input    json.RawMessage `json:"input"`
	Reply    json.RawMessage `json:"reply"`
	Schema   json.RawMessage `json:"schema"`
	Aliases  []string        `json:"aliases"`
	UpcastTo string          `json:"upcast_to"`
}

func FuzzManifest(f *testing.F) {
	f.Add("bank", "1.0", "go/1", "deposit", "old", uint32(3))
	f.Add("\x00\x1f\"\\/", "\xff\xfe", "\u2028\U0001F6A2", "", "\x7f", uint32(0))
	f.Fuzz(func(t *testing.T, service, version, sdk, name, alias string, schema uint32) {
		m := abi.Manifest{
			ABI: abi.Version, Service: service, Version: version, SDK: sdk, StateSchema: schema,
			Features: []string{alias, ""}, EarlierSchemas: []uint32{schema, 0},
			Commands: []abi.CommandType{{Name: name, Input: `{"type":"object"}`}, {Name: alias}},
			Queries:  []abi.QueryType{{Name: name, Reply: `true`}},
			Events: []abi.EventType{{Name: name, Schema: `{}`, Aliases: []string{alias, name}},
				{Name: "x", UpcastTo: name}},
		}
		b := m.AppendJSON([]byte("before"))
		b, found := bytes.CutPrefix(b, []byte("before"))
		if !found || !json.Valid(b) || !utf8.Valid(b) {
			t.Fatalf("not valid JSON: %s", b)
		}
		var w wireManifest
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&w); err != nil {
			t.Fatal(err)
		}
		utf := func(s string) string { return string([]rune(s)) }
		if w.ABI != abi.Version || w.Service != utf(service) || w.Version != utf(version) || w.SDK != utf(sdk) ||
			w.StateSchema != schema || !slices.Equal(w.Earlier, m.EarlierSchemas) ||
			w.Encoding != abi.EncodingJSON || len(w.Commands) != 2 || w.Commands[1].Name != utf(alias) ||
			string(w.Commands[0].Input) != `{"type":"object"}` ||
			len(w.Queries) != 1 || string(w.Queries[0].Reply) != `true` || len(w.Events) != 2 ||
			w.Events[0].Aliases[0] != utf(alias) || w.Events[0].UpcastTo != "" || w.Events[1].UpcastTo != utf(name) ||
			w.Capabilities != nil {
			t.Fatalf("got %+v from %s", w, b)
		}
	})
}

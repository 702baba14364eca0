package abitest

import (
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/abi"
)

//go:embed testdata/golden.json
var golden []byte

// File is the structure of testdata/golden.json.
type File struct {
	ABI     int      `json:"abi"`
	Note    string   `json:"note"`
	Vectors []Vector `json:"vectors"`
}

// Load returns the golden vectors of the repository.
func Load() (File, error) {
	var f File
	err := json.Unmarshal(golden, &f)
	return f, err
}

// Lookup returns the golden vector with this name.
func Lookup(name string) (Vector, error) {
	f, err := Load()
	if err != nil {
		return Vector{}, err
	}
	for _, v := range f.Vectors {
		if v.Name == name {
			return v, nil
		}
	}
	return Vector{}, fmt.Errorf("no golden vector %q", name)
}

// Generate makes the golden vectors with the codec of package abi. The test of this package
// compares them with the file, or writes the file under -update.
func Generate() (File, error) {
	f := File{
		ABI: abi.Version,
		Note: "Golden vectors of the Bulkhead ABI. A codec must decode hex to fields and encode fields to hex; " +
			"vectors with an error must be refused, those with decode_only need only be decoded. " +
			"Fields that are missing are zero. Numbers of 64 bits are decimal text. SPEC.md explains them.",
	}
	for _, v := range append(accepted(), refused()...) {
		if v.Hex == "" && v.Error == "" {
			b, err := Encode(v.Kind, v.Fields)
			if err != nil {
				return File{}, fmt.Errorf("%s: %w", v.Name, err)
			}
			v.Hex = hex.EncodeToString(b)
		}
		f.Vectors = append(f.Vectors, v)
	}
	return f, nil
}

const (
	noon = 1_700_000_000_000_000_000
	seed = "000102030405060708090a0b0c0d0e0f"
)

func accepted() []Vector {
	text := func(s string) *string { return &s }
	trace := [][2]string{{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	many := make([][2]string, 40)
	for i := range many {
		many[i] = [2]string{fmt.Sprintf("name-%d", i), strings.Repeat("v", i)}
	}
	return []Vector{
		{Name: "open", Note: "an entity without a snapshot", Kind: Open, Fields: Fields{Slot: 7, Key: "alice"}},
		{Name: "open-snapshot", Note: "an entity from a snapshot of version 3", Kind: Open,
			Fields: Fields{Flags: abi.FlagSnapshot, Slot: 7, Version: 3, Key: "alice", Snapshot: text(`{"n":12}`)}},
		{Name: "open-empty-snapshot", Note: "a snapshot of no bytes is one, by its flag", Kind: Open,
			Fields: Fields{Flags: abi.FlagSnapshot, Slot: 4294967295, Version: 18446744073709551615, Key: "k",
				Snapshot: text("")}},
		{Name: "open-earlier", Note: "a snapshot of the second of the earlier state schemas in the manifest",
			Kind: Open,
			Fields: Fields{Flags: abi.FlagSnapshot | abi.FlagEarlier, Type: 1, Slot: 7, Version: 3, Key: "alice",
				Snapshot: text(`{"v":12}`)}},
		{Name: "open-longest-key", Note: "a key of 256 bytes, of two bytes a character", Kind: Open,
			Fields: Fields{Key: strings.Repeat("é", abi.MaxKeySize/2)}},
		{Name: "apply", Note: "the entity's first event, of the manifest's event 0", Kind: Apply,
			Fields: Fields{Slot: 7, Version: 1, Time: noon, Body: `{"by":5}`}},
		{Name: "apply-metadata", Note: "an event with metadata, of type 2", Kind: Apply,
			Fields: Fields{Type: 2, Slot: 7, Version: 2, Time: noon + 1, Body: `{"by":7}`, Metadata: trace}},
		{Name: "command", Note: "command 0 on an entity of version 3", Kind: Command,
			Fields: Fields{Slot: 7, Version: 3, Time: noon, SeedHex: seed, ID: "cmd-1", Body: `{"by":5}`}},
		{Name: "command-metadata", Note: "the order of the fields is id, metadata, body", Kind: Command,
			Fields: Fields{Type: 1, Slot: 7, Version: 4, Time: noon, SeedHex: seed, ID: "cmd-2", Metadata: trace,
				Body: `{}`}},
		{Name: "command-bare", Note: "no id, no metadata, no body", Kind: Command,
			Fields: Fields{SeedHex: strings.Repeat("0", 32)}},
		{Name: "command-extremes", Note: "largest numbers, longest id", Kind: Command,
			Fields: Fields{Type: 65535, Slot: 4294967295, Version: 18446744073709551615, Time: 18446744073709551615,
				SeedHex: strings.Repeat("f", 32), ID: strings.Repeat("i", abi.MaxCommandIDSize), Metadata: many,
				Body: "ü\u0000\U0001F6A2"}},
		{Name: "query", Note: "query 0", Kind: Query, Fields: Fields{Slot: 7, Version: 4, Time: noon, Body: `{}`}},
		{Name: "snapshot-request", Note: "no payload", Kind: SnapshotRequest, Fields: Fields{Slot: 7}},
		{Name: "drop", Note: "no payload", Kind: Drop, Fields: Fields{Slot: 7}},
		{Name: "describe", Note: "no payload, no slot", Kind: Describe},

		{Name: "event", Note: "caused by the command in frame 0", Kind: Event,
			Fields: Fields{Slot: 7, Body: `{"by":5}`}},
		{Name: "event-metadata", Note: "of type 2, with metadata", Kind: Event,
			Fields: Fields{Type: 2, Slot: 7, Body: `{}`, Metadata: [][2]string{{"why", "because"}, {"none", ""}}}},
		{Name: "reply", Note: "to a command with one event: aux is 1", Kind: Reply,
			Fields: Fields{Slot: 7, Aux: 1, Body: `{"n":17}`}},
		{Name: "reply-empty", Note: "a reply without a body, to a query or a command without events", Kind: Reply,
			Fields: Fields{Slot: 7}},
		{Name: "reject", Note: "refused by the domain", Kind: Reject,
			Fields: Fields{Slot: 7, Code: "below_zero", Message: "the counter is at 3"}},
		{Name: "fault", Note: "the handler failed", Kind: Fault,
			Fields: Fields{Slot: 7, Index: 2, Code: abi.CodeBadEvent, Message: "event 9 of 3"}},
		{Name: "snapshot", Note: "answers frame 1 of its request", Kind: Snapshot,
			Fields: Fields{Slot: 7, Index: 1, Body: `{"n":17}`}},
		{Name: "description", Note: "a small manifest", Kind: Description,
			Fields: Fields{
				Body: `{"abi":1,"service":"counter","commands":[{"name":"add"}],"queries":[],` +
					`"events":[{"name":"added"}]}`}},
		{Name: "log", Note: "a warning", Kind: Log, Fields: Fields{Slot: 7, Aux: uint32(abi.LogWarn),
			Body: "running low"}},

		{Name: "metadata-empty", Note: "no pairs are no bytes", Kind: Metadata},
		{Name: "metadata", Note: "two pairs, no padding", Kind: Metadata,
			Fields: Fields{Metadata: [][2]string{{"user", "alice"}, {"ok", ""}}}},

		{Name: "query-later-fields",
			Note: "a payload with 8 bytes of fields that version 1 does not know; a decoder ignores them",
			Kind: Query, DecodeOnly: true, Fields: Fields{Slot: 7, Version: 4, Time: noon, Body: `{}`},
			Hex: later(must(Encode(Query, Fields{Slot: 7, Version: 4, Time: noon, Body: `{}`})),
				abi.RequestHeaderSize)},
		{Name: "reply-later-fields", Note: "the same in a response", Kind: Reply, DecodeOnly: true,
			Fields: Fields{Slot: 7, Body: `{}`},
			Hex:    later(must(Encode(Reply, Fields{Slot: 7, Body: `{}`})), abi.ResponseHeaderSize)},
		{Name: "drop-later-flags", Note: "flag bits that version 1 does not know; a decoder ignores them", Kind: Drop,
			DecodeOnly: true,
			Fields:     Fields{Flags: 0xfe, Slot: 7}, Hex: edit(Drop, Fields{Slot: 7}, 5, 0xfe)},
	}
}

func refused() []Vector {
	cmd := Fields{Slot: 7, SeedHex: seed, ID: "cmd-1", Body: "{}"}
	ev := Fields{Slot: 7, Body: "{}"}
	return []Vector{
		{Name: "bad-empty", Note: "no bytes are no frame", Kind: Request, Error: "short_header"},
		{Name: "bad-short", Note: "31 bytes of a request", Kind: Request, Error: "short_header",
			Hex: edit(Describe, Fields{}, 31)},
		{Name: "bad-response-short", Note: "23 bytes of a response", Kind: Response, Error: "short_header",
			Hex: edit(Reply, Fields{}, 23)},
		{Name: "bad-length-zero", Note: "a frame that would never end", Kind: Request, Error: "frame_length",
			Hex: edit(Describe, Fields{}, 0, 0)},
		{Name: "bad-length-header", Note: "length 24 of a request, below its header", Kind: Request,
			Error: "frame_length", Hex: edit(Describe, Fields{}, 0, 24)},
		{Name: "bad-length-odd", Note: "length 33", Kind: Request, Error: "frame_length",
			Hex: edit(Open, Fields{Key: "k"}, 0, 33)},
		{Name: "bad-length-beyond", Note: "length 8 beyond the bytes", Kind: Request, Error: "frame_length",
			Hex: edit(Describe, Fields{}, 0, 40)},
		{Name: "bad-length-wraps", Note: "length 0xfffffff8", Kind: Response, Error: "frame_length",
			Hex: edit(Reply, Fields{}, 0, 0xf8, 0xff, 0xff, 0xff)},
		{Name: "bad-payload", Note: "payload length beyond the frame", Kind: Request, Error: "payload",
			Hex: edit(Describe, Fields{}, 12, 1)},
		{Name: "bad-payload-wraps", Note: "payload length 0xffffffff", Kind: Response, Error: "payload",
			Hex: edit(Reply, Fields{}, 12, 0xff, 0xff, 0xff, 0xff)},
		{Name: "bad-open-short", Note: "7 bytes of fixed fields", Kind: Open, Error: "short_payload",
			Hex: edit(Open, Fields{Key: "k"}, 12, 7)},
		{Name: "bad-command-short", Note: "31 bytes of fixed fields", Kind: Command, Error: "short_payload",
			Hex: edit(Command, cmd, 12, 31)},
		{Name: "bad-key-long", Note: "a key of 257 bytes", Kind: Open, Error: "too_large",
			Hex: hexOf(Open, Fields{Key: strings.Repeat("k", 257)})},
		{Name: "bad-id-long", Note: "a command id of 129 bytes", Kind: Command, Error: "too_large",
			Hex: hexOf(Command, Fields{SeedHex: seed, ID: strings.Repeat("i", 129)})},
		{Name: "bad-code-long", Note: "a code of 129 bytes", Kind: Reject, Error: "too_large",
			Hex: edit(Reject, Fields{Code: strings.Repeat("c", 128), Message: "m"}, 24, 129)},
		{Name: "bad-key-field", Note: "a key longer than its payload", Kind: Open, Error: "field",
			Hex: edit(Open, Fields{Key: "k"}, 32, 2)},
		{Name: "bad-body-field", Note: "a body length that wraps when added", Kind: Event, Error: "too_large",
			Hex: edit(Event, ev, 24, 0xff, 0xff, 0xff, 0xff)},
		{Name: "bad-fields-sum", Note: "each field fits, their sum does not", Kind: Event, Error: "field",
			Hex: edit(Event, ev, 28, 1)},
		{Name: "bad-metadata-short", Note: "3 bytes cannot hold a pair's lengths", Kind: Metadata, Error: "metadata",
			Hex: "000000"},
		{Name: "bad-metadata-value", Note: "a value longer than the bytes", Kind: Metadata, Error: "metadata",
			Hex: "0100020061" + "62"},
		{Name: "bad-metadata-tail", Note: "a pair, then one byte", Kind: Metadata, Error: "metadata",
			Hex: "01000100616200"},
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func hexOf(k Kind, f Fields) string { return hex.EncodeToString(must(Encode(k, f))) }

// edit encodes a frame and overwrites its bytes at an offset. Without bytes, it cuts the frame at
// the offset.
func edit(k Kind, f Fields, at int, with ...byte) string {
	b := must(Encode(k, f))
	if len(with) == 0 {
		return hex.EncodeToString(b[:at])
	}
	copy(b[at:], with)
	return hex.EncodeToString(b)
}

// later appends 8 bytes of unknown fields to the payload of a frame.
func later(b []byte, header int) string {
	n := int(b[12])
	b = append(b[:header+n:header+n], 0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef)
	for len(b)%abi.FrameAlign != 0 {
		b = append(b, 0)
	}
	b[0], b[12] = byte(len(b)), byte(n+8)
	return hex.EncodeToString(b)
}

package abi_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/abi/abitest"
)

// decodeAll runs every decoder on b, as request and as response, for all kinds of payloads. It
// checks that all views are within b.
func decodeAll(t testing.TB, b []byte) {
	within := func(what string, view []byte) {
		if len(view) == 0 {
			return
		}
		if len(b) == 0 {
			t.Fatalf("%s: a view of %d bytes into nothing", what, len(view))
		}
		at := uintptr(unsafe.Pointer(&view[0])) - uintptr(unsafe.Pointer(&b[0]))
		if at > uintptr(len(b)) || uintptr(len(view)) > uintptr(len(b))-at {
			t.Fatalf("%s: view outside of its input", what)
		}
		if cap(view) != len(view) {
			t.Fatalf("%s: appending to the view would overwrite its neighbour", what)
		}
	}
	for rest := b; len(rest) > 0; {
		r, next, err := abi.DecodeRequest(rest)
		if err != nil {
			if next != nil || r.Payload != nil {
				t.Fatal("a refused request has left something")
			}
			break
		}
		if len(rest)-len(next) < abi.RequestHeaderSize {
			t.Fatal("a request frame that makes no progress")
		}
		within("request payload", r.Payload)
		if o, err := abi.DecodeOpen(&r); err == nil {
			within("key", o.Key)
			within("snapshot", o.Snapshot)
		}
		if a, err := abi.DecodeApply(&r); err == nil {
			within("apply body", a.Body)
			within("apply metadata", a.Metadata)
			metadata(t, a.Metadata, within)
		}
		if c, err := abi.DecodeCommand(&r); err == nil {
			within("id", c.ID)
			within("command metadata", c.Metadata)
			within("command body", c.Body)
			metadata(t, c.Metadata, within)
		}
		if q, err := abi.DecodeQuery(&r); err == nil {
			within("query body", q.Body)
		}
		rest = next
	}
	for rest := b; len(rest) > 0; {
		r, next, err := abi.DecodeResponse(rest)
		if err != nil {
			break
		}
		if len(rest)-len(next) < abi.ResponseHeaderSize {
			t.Fatal("a response frame that makes no progress")
		}
		within("response payload", r.Payload)
		if e, err := abi.DecodeEvent(&r); err == nil {
			within("event body", e.Body)
			metadata(t, e.Metadata, within)
		}
		if body, err := abi.DecodeBody(&r); err == nil {
			within("body", body)
		}
		if x, err := abi.DecodeRefusal(&r); err == nil {
			within("code", x.Code)
			within("message", x.Message)
		}
		rest = next
	}
	metadata(t, b, within)
}

func metadata(t testing.TB, m abi.Metadata, within func(string, []byte)) {
	valid := m.Valid()
	size, texts := 0, true
	for rest := m; ; {
		name, value, next, ok := rest.Next()
		if !ok {
			break
		}
		within("name", name)
		within("value", value)
		size += 4 + len(name) + len(value)
		texts = texts && len(name) > 0 && utf8.Valid(name) && utf8.Valid(value)
		if got, ok := m.Get(string(name)); !ok || got == nil {
			t.Fatal("Get does not find a name that Next found")
		}
		rest = next
	}
	if (valid == nil) != (texts && size == len(m) && len(m) <= abi.MaxMetadataSize) {
		t.Fatalf("Valid says %v, pairs fill %d of %d bytes", valid, size, len(m))
	}
}

func goldenBytes(t testing.TB) [][]byte {
	f, err := abitest.Load()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, v := range f.Vectors {
		b, err := v.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// exactly copies b into memory of exactly its size, so that a read beyond it is caught.
func exactly(b []byte) []byte { return append(make([]byte, 0, len(b)), b...) }

func TestTruncatedAnywhere(t *testing.T) {
	for _, b := range goldenBytes(t) {
		for n := range len(b) + 1 {
			cut := exactly(b[:n])
			decodeAll(t, cut)
			if n < len(b) && n > 0 {
				if _, rest, err := abi.DecodeRequest(cut); err == nil && len(rest) != 0 {
					decodeAll(t, rest)
				}
			}
		}
	}
}

func TestEveryBitFlipped(t *testing.T) {
	for _, b := range goldenBytes(t) {
		b = exactly(b)
		for bit := range len(b) * 8 {
			b[bit/8] ^= 1 << (bit % 8)
			decodeAll(t, b)
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// Lengths near 2^31 and 2^32 in every aligned word of a frame, and in every pair of words, to
// provoke sums that wrap.
func TestExtremeLengths(t *testing.T) {
	extremes := []uint32{0, 1, 7, 8, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffff8, 0xffffffff, abi.MaxFrameSize,
		abi.MaxFrameSize + 8}
	put := func(b []byte, v uint32) { b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24) }
	for _, golden := range goldenBytes(t) {
		if len(golden) > 64 {
			continue // the short frames have the same fields
		}
		for i := 0; i+4 <= len(golden); i += 4 {
			for j := i; j+4 <= len(golden); j += 4 {
				for _, x := range extremes {
					for _, y := range extremes {
						b := exactly(golden)
						put(b[i:], x)
						put(b[j:], y)
						decodeAll(t, b)
					}
				}
			}
		}
	}
}

func TestFramesFollowEachOther(t *testing.T) {
	var all []byte
	all = abi.AppendOpen(all, 1, 0, "a", nil)
	all = abi.AppendApply(all, 1, 3, 1, 9, []byte("xy"), nil)
	all = abi.AppendDrop(all, 1)
	all = abi.AppendDescribe(all)
	var kinds []abi.RequestKind
	for _, r := range abitest.Requests(t, all) {
		kinds = append(kinds, r.Kind)
	}
	want := []abi.RequestKind{abi.ReqOpen, abi.ReqApply, abi.ReqDrop, abi.ReqDescribe}
	if !bytes.Equal(toBytes(kinds), toBytes(want)) {
		t.Fatalf("got %v, want %v", kinds, want)
	}
}

func toBytes(kinds []abi.RequestKind) (b []byte) {
	for _, k := range kinds {
		b = append(b, byte(k))
	}
	return b
}

func TestEncodersKeepWhatIsThere(t *testing.T) {
	before := []byte("odd") // frames are aligned to their own start, not to the buffer's
	b := abi.AppendQuery(before, 1, 2, 3, 4, []byte("body"))
	if !bytes.HasPrefix(b, before) {
		t.Fatal("encoder overwrote the buffer")
	}
	r, rest, err := abi.DecodeRequest(b[len(before):])
	if err != nil || len(rest) != 0 {
		t.Fatalf("rest %x, err %v", rest, err)
	}
	if q, err := abi.DecodeQuery(&r); err != nil || string(q.Body) != "body" {
		t.Fatalf("got %q, %v", q.Body, err)
	}
}

// A body that is encoded in place gives the same frame as one that is passed as a slice.
func TestBodyInPlace(t *testing.T) {
	head := abi.Response{Kind: abi.RespEvent, Type: 3, Slot: 7, Index: 1}
	b, at := abi.BeginBody([]byte("12345678"))
	b = append(b, "body"...)
	b = abi.EndBody(b, at, head)
	if want := abi.AppendEvent([]byte("12345678"), 7, 1, 3, []byte("body"), nil); !bytes.Equal(b, want) {
		t.Fatalf("got %x, want %x", b, want)
	}
}

// Old bytes after the buffer's length must not appear in the padding.
func TestPaddingIsZero(t *testing.T) {
	dirty := bytes.Repeat([]byte{0xaa}, 256)
	b := abi.AppendEvent(dirty[:0], 1, 0, 0, []byte("x"), nil)
	for i, x := range b[abi.ResponseHeaderSize+9:] {
		if x != 0 {
			t.Fatalf("padding byte %d is %#x", i, x)
		}
	}
	if b[len(b)-1] != 0 || len(b) != 40 {
		t.Fatalf("frame %x", b)
	}
}

func TestRefusalIsCutBetweenCharacters(t *testing.T) {
	code := string(bytes.Repeat([]byte("é"), 100))           // 200 bytes
	message := "x" + string(bytes.Repeat([]byte("漢"), 2000)) // 6001 bytes
	b := abi.AppendRefusal(nil, abi.Response{Kind: abi.RespReject}, code, message)
	c, m := abitest.Refusal(t, abitest.One(t, b))
	if c != code[:128] || m != message[:4096] {
		t.Fatalf("code of %d bytes, message of %d: %q", len(c), len(m), m[len(m)-4:])
	}
	b = abi.AppendRefusal(nil, abi.Response{Kind: abi.RespReject}, "x"+code, message[1:])
	c, m = abitest.Refusal(t, abitest.One(t, b))
	if c != ("x" + code)[:127] || m != message[1:][:4095] {
		t.Fatalf("code of %d bytes, message of %d: %q", len(c), len(m), m[len(m)-4:])
	}
	// Bytes that are not UTF-8 at all are cut near the limit.
	b = abi.AppendRefusal(nil, abi.Response{Kind: abi.RespReject}, string(bytes.Repeat([]byte{0x80}, 300)), "")
	if c, _ = abitest.Refusal(t, abitest.One(t, b)); len(c) != 125 {
		t.Fatalf("code of %d bytes", len(c))
	}
}

func TestMetadata(t *testing.T) {
	m := abi.Metadata(nil).AppendPair("user", "alice").AppendPair("empty", "").AppendPair("user", "bob")
	if err := m.Valid(); err != nil {
		t.Fatal(err)
	}
	if v, ok := m.Get("user"); !ok || string(v) != "alice" {
		t.Fatalf("first of two: %q, %v", v, ok)
	}
	if v, ok := m.Get("empty"); !ok || len(v) != 0 {
		t.Fatalf("empty value: %q, %v", v, ok)
	}
	if _, ok := m.Get("none"); ok {
		t.Fatal("found a name that is not there")
	}
	if err := make(abi.Metadata, abi.MaxMetadataSize+4).Valid(); err != abi.ErrTooLarge {
		t.Fatalf("too large: %v", err)
	}
	if err := abi.Metadata(nil).AppendPair("large", strings.Repeat("x",
		abi.MaxMetadataSize-4-len("large"))).Valid(); err != nil {
		t.Fatalf("largest: %v", err)
	}
	for _, pair := range [][2]string{{"", "no name"}, {"\xff", "a name"}, {"a value", "\xc3"}} {
		if err := m.AppendPair(pair[0], pair[1]).Valid(); err != abi.ErrMetadata {
			t.Errorf("%q: %v", pair, err)
		}
	}
}

func TestPackRange(t *testing.T) {
	for _, c := range []struct {
		addr, length uint32
		want         uint64
	}{
		{0, 0, 0},
		{0x00010000, 0x48, 0x00010000_00000048},
		{0xfffffff8, 8, 0xfffffff8_00000008},
		{0, 0xffffffff, 0xffffffff},
	} {
		if got := abi.PackRange(c.addr, c.length); got != c.want {
			t.Errorf("PackRange(%#x, %#x) = %#x, want %#x", c.addr, c.length, got, c.want)
		}
		if a, l := abi.UnpackRange(c.want); a != c.addr || l != c.length {
			t.Errorf("UnpackRange(%#x) = %#x, %#x", c.want, a, l)
		}
	}
}

func TestNamesOfKindsAndErrors(t *testing.T) {
	seen := map[string]bool{}
	for k := abi.ReqOpen; k <= abi.ReqDescribe; k++ {
		seen[k.String()] = true
	}
	for k := abi.RespEvent; k <= abi.RespEffect; k++ {
		seen[k.String()+" response"] = true
	}
	for e := abi.ErrShortHeader; e <= abi.ErrTooLarge; e++ {
		seen[e.Error()] = true
	}
	if len(seen) != 7+8+7 || seen["unknown request kind"] || seen["unknown response kind response"] {
		t.Fatalf("a name is missing or used twice: %v", seen)
	}
	if abi.RequestKind(0).String() == "" || abi.ResponseKind(99).String() == "" || abi.DecodeError(0).Error() == "" {
		t.Fatal("unknown values have no text")
	}
	for k := range abi.ResponseKind(12) {
		if want := k == abi.RespReply || k == abi.RespReject || k == abi.RespFault; k.Terminal() != want {
			t.Errorf("%v is terminal: %v", k, !want)
		}
	}
}

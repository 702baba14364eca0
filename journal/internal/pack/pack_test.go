package pack

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
)

// What is packed comes back, in memory that is used again, and what does not shrink says so.
func TestPack(t *testing.T) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	random := make([]byte, 100_000)
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	var packed, raw []byte
	for _, c := range []struct {
		name   string
		raw    []byte
		shrink bool
	}{
		{"nothing", nil, false},
		{"one byte", []byte{7}, false},
		{"text", bytes.Repeat([]byte("the same again and again "), 4000), true},
		{"noise", random, false},
		{"half of it noise", append(make([]byte, 100_000), random...), true},
		{"long text", bytes.Repeat([]byte("the same again and again "), 40_000), true},
		{"long noise", bytes.Repeat(random, 5), false},
		{"one byte more than a piece", make([]byte, yield.Step+1), true},
	} {
		small, ok := Pack(packed, c.raw)
		if ok != c.shrink {
			t.Errorf("%s: packed is %v, %d bytes of %d", c.name, ok, len(small), len(c.raw))
		}
		packed = small
		back, err := Unpack(raw, small, len(c.raw))
		if err != nil || !bytes.Equal(back, c.raw) {
			t.Errorf("%s: %v", c.name, err)
		}
		raw = back
		if len(c.raw) > 0 {
			if _, err := Unpack(nil, small, len(c.raw)-1); err == nil {
				t.Errorf("%s: unpacked beyond the bound", c.name)
			}
		}
	}
}

// Whatever the bytes are, they are unpacked to no more than the bound, or refused.
func FuzzUnpack(f *testing.F) {
	small, _ := Pack(nil, bytes.Repeat([]byte("once more "), 100))
	f.Add(small)
	f.Add(small[:len(small)-1])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0})
	f.Fuzz(func(t *testing.T, packed []byte) {
		const most = 1 << 16
		raw, err := Unpack(nil, packed, most)
		if err != nil {
			return
		}
		if len(raw) > most {
			t.Fatalf("%d bytes", len(raw))
		}
		again, _ := Pack(nil, raw)
		back, err := Unpack(nil, again, most)
		if err != nil || !bytes.Equal(back, raw) {
			t.Fatalf("%v", err)
		}
	})
}

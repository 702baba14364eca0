package meteringtest

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/metering"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
	"github.com/bulkhead-wasm/bulkhead/internal/raced"
	"github.com/tetratelabs/wazero"
)

// The canonical NaNs.
const (
	nan32 = 0x7fc00000
	nan64 = 0x7ff8000000000000
)

// floats is a random program on floats, and its execution in Go, which makes every result of
// arithmetic canonical at once.
type floats struct {
	rng   *rand.Rand
	code  []byte
	stack []uint64 // bits
	wide  []bool   // f64, otherwise f32
}

func canonical64(f float64) uint64 {
	if f != f {
		return nan64
	}
	return math.Float64bits(f)
}

func canonical32(f float32) uint64 {
	if f != f {
		return nan32
	}
	return uint64(math.Float32bits(f))
}

func (p *floats) emit(b ...byte) { p.code = append(p.code, b...) }

func (p *floats) push(bits uint64, wide bool) {
	p.stack = append(p.stack, bits)
	p.wide = append(p.wide, wide)
}

func (p *floats) pop() (uint64, bool) {
	n := len(p.stack) - 1
	v, w := p.stack[n], p.wide[n]
	p.stack, p.wide = p.stack[:n], p.wide[:n]
	return v, w
}

// constant is often a NaN with a payload.
func (p *floats) constant() {
	if p.rng.IntN(2) == 0 {
		bits := [...]uint64{0x7ff8dead00000000, 0xfff0000000000001, 0x7ff0000000000000, 0xfff0000000000000,
			math.Float64bits(1.5), 1 << 63, 0, p.rng.Uint64()}[p.rng.IntN(8)]
		p.emit(0x44)
		p.code = binary.LittleEndian.AppendUint64(p.code, bits)
		p.push(bits, true)
		return
	}
	bits := [...]uint32{0x7fc0dead, 0xff800001, 0x7f800000, 0xff800000, math.Float32bits(1.5), 1 << 31, 0,
		p.rng.Uint32()}[p.rng.IntN(8)]
	p.emit(0x43)
	p.code = binary.LittleEndian.AppendUint32(p.code, bits)
	p.push(uint64(bits), false)
}

// step appends an instruction, and executes it in Go.
func (p *floats) step() {
	n := len(p.stack)
	if n == 0 || n < 6 && p.rng.IntN(3) == 0 {
		p.constant()
		return
	}
	if n > 1 && p.wide[n-1] == p.wide[n-2] && p.rng.IntN(2) == 0 {
		p.binary()
		return
	}
	p.unary()
}

func (p *floats) binary() {
	b, wide := p.pop()
	a, _ := p.pop()
	k := p.rng.IntN(7)
	if k == 6 { // copysign keeps bits
		if wide {
			p.emit(0xa6)
			p.push(a&^(1<<63)|b&(1<<63), true)
		} else {
			p.emit(0x98)
			p.push(a&^(1<<31)|b&(1<<31), false)
		}
		return
	}
	do := func(x, y float64) float64 {
		if x != x || y != y { // to Go an infinity may be less
			return math.NaN()
		}
		return [...]float64{x + y, x - y, x * y, x / y, math.Min(x, y), math.Max(x, y)}[k]
	}
	if wide {
		p.emit(byte(0xa0 + k))
		p.push(canonical64(do(math.Float64frombits(a), math.Float64frombits(b))), true)
		return
	}
	p.emit(byte(0x92 + k))
	x, y := math.Float32frombits(uint32(a)), math.Float32frombits(uint32(b))
	r := [...]float32{x + y, x - y, x * y, x / y}[k&3]
	if k >= 4 {
		r = float32(do(float64(x), float64(y)))
	}
	p.push(canonical32(r), false)
}

func (p *floats) unary() {
	a, wide := p.pop()
	switch k := p.rng.IntN(11); {
	case k < 5: // ceil, floor, trunc, nearest, sqrt
		do := [...]func(float64) float64{math.Ceil, math.Floor, math.Trunc, math.RoundToEven, math.Sqrt}[k]
		if wide {
			p.emit(byte(0x9b + k))
			p.push(canonical64(do(math.Float64frombits(a))), true)
		} else {
			p.emit(byte(0x8d + k))
			p.push(canonical32(float32(do(float64(math.Float32frombits(uint32(a)))))), false)
		}
	case k == 5: // convert to the other width
		if wide {
			p.emit(0xb6)
			p.push(canonical32(float32(math.Float64frombits(a))), false)
		} else {
			p.emit(0xbb)
			p.push(canonical64(float64(math.Float32frombits(uint32(a)))), true)
		}
	case k < 8: // abs, neg
		sign, op := uint64(1)<<31, byte(0x8b)
		if wide {
			sign, op = 1<<63, 0x99
		}
		if k == 6 {
			p.emit(op)
			p.push(a&^sign, wide)
		} else {
			p.emit(op + 1)
			p.push(a^sign, wide)
		}
	case k == 8: // convert to an integer and back
		if wide {
			p.emit(0xbd, 0xbf)
		} else {
			p.emit(0xbc, 0xbe)
		}
		p.push(a, wide)
	case k == 9: // through a local
		l := byte(0)
		if !wide {
			l = 1
		}
		p.emit(0x22, l)
		p.emit(0x1a, 0x20, l)
		p.push(a, wide)
	default: // into a block
		t, l := byte(wasmbin.F32), byte(1)
		if wide {
			t, l = byte(wasmbin.F64), 0
		}
		p.emit(0x21, l, 0x02, t, 0x20, l, 0x0b)
		p.push(a, wide)
	}
}

// Results of arithmetic are canonical wherever their bits can be seen, and nothing else changes.
func TestNaNsAreCanonicalWhereTheyShow(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	ctx := context.Background()
	r, err := NewRuntime(ctx, Compiler)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(ctx)
	differ := 0
	for i := range 150 {
		s := *seed + uint64(i)
		p := &floats{rng: rand.New(rand.NewPCG(s, 4))}
		for range 3 + p.rng.IntN(40) {
			p.step()
		}
		var results []wasmbin.ValType
		for _, wide := range p.wide {
			results = append(results, map[bool]wasmbin.ValType{true: wasmbin.F64, false: wasmbin.F32}[wide])
		}
		var b testguest.Builder
		b.Func(nil, results, testguest.Types(wasmbin.F64, wasmbin.F32), p.code)
		b.Export("run", wasmbin.ExternFunc, 0)
		m, err := Rewrite(b.Bytes(), metering.Options{})
		if err != nil {
			t.Fatal(err)
		}
		run := func(binary []byte) []uint64 {
			in, err := r.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithName(""))
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close(ctx)
			meter := &Meter{Slice: 1000, Limit: 10_000, Stack: 1000}
			if in.ExportedGlobal(metering.ExportFuel) != nil {
				meter.Begin(in)
			}
			got, err := in.ExportedFunction("run").Call(meter.Into(ctx))
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		plain, got := run(b.Bytes()), run(m.Binary)
		for k, want := range p.stack {
			if got[k] != want {
				t.Fatalf("seed %d: value %d is %x, want %x\n%x", s, k, got[k], want, p.code)
			}
			if plain[k] != want {
				differ++
			}
		}
	}
	if differ == 0 {
		t.Error("no NaN was other than canonical without it: nothing was tested")
	}
}

// Lanes are canonical too, even if the next instruction reads them as lanes of another width.
func TestNaNsOfLanesAreCanonical(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	vector := func(lo, hi uint64) []byte {
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64([]byte{0xfd, 12}, lo), hi)
	}
	const (
		dirty32 = 0xffc00001_7fc0dead // two f32 NaNs
		dirty64 = 0xfff8000000000001
		one32   = 0x3f800000_3f800000
		one64   = 0x3ff0000000000000
		zero64  = 1 << 63 // -0.0, whose addition changes nothing
	)
	mul32, mul64, add64 := testguest.Op(0xfd, 0xe6, 1), testguest.Op(0xfd, 0xf2, 1), testguest.Op(0xfd, 0xf0, 1)
	lane := testguest.Op(0xfd, 0x1d, 0)
	for name, c := range map[string]struct {
		code []byte
		want uint64
	}{
		"f32x4": {testguest.Code(vector(dirty32, one32), vector(one32, one32), mul32), nan32<<32 | nan32},
		"f32x4, twice": {testguest.Code(vector(dirty32, one32), vector(one32, one32), mul32, vector(one32, one32),
			mul32), nan32<<32 | nan32},
		"f32x4 as f64x2": {testguest.Code(vector(dirty32, one32), vector(one32, one32), mul32,
			vector(zero64, zero64), add64), nan32<<32 | nan32},
		"f64x2":             {testguest.Code(vector(dirty64, one64), vector(one64, one64), mul64), nan64},
		"a move":            {vector(dirty64, 0), dirty64},
		"the sign":          {testguest.Code(vector(dirty64, 0), testguest.Op(0xfd, 0xec, 1)), dirty64 &^ (1 << 63)},
		"promoted":          {testguest.Code(vector(dirty32, one32), testguest.Op(0xfd, 0x5f)), nan64},
		"demoted":           {testguest.Code(vector(dirty64, dirty64), testguest.Op(0xfd, 0x5e)), nan32<<32 | nan32},
		"sqrt of less than": {testguest.Code(vector(math.Float64bits(-1), 0), testguest.Op(0xfd, 0xef, 1)), nan64},
	} {
		var b testguest.Builder
		b.Func(nil, i64s, nil, c.code, lane)
		b.Export("run", wasmbin.ExternFunc, 0)
		for _, e := range Engines {
			in, _ := start(t, e, b.Bytes(), metering.Options{})
			m := &Meter{Slice: 1000, Limit: 1000, Stack: 1000}
			m.Begin(in)
			if got, err := in.ExportedFunction("run").Call(m.Into(t.Context())); err != nil || got[0] != c.want {
				t.Errorf("%s, %s: %x %v, want %x", name, e, got, err, c.want)
			}
		}
	}
}

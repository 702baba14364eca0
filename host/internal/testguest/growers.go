package testguest

import "bytes"

// Growers returns modules of about size bytes, at least 8 KiB, that become many times larger, or need many
// times their memory, when they are rewritten for metering. Otherwise they are honest liars.
func Growers(size int) []Bomb {
	const maxBody = 2<<20 - 1024 // bytes of one body
	fill := func(body func(bytes int) []byte) []byte {
		return Liar{With: func(b *Builder) {
			for left := size - 4<<10; left > 0; left -= maxBody {
				b.Func(nil, nil, nil, body(min(left, maxBody)))
			}
		}}.Bytes()
	}
	repeat := func(code []byte) func(int) []byte {
		return func(n int) []byte { return bytes.Repeat(code, max(1, n/len(code))) }
	}
	targets := make([]uint32, 60_000)
	return []Bomb{
		{"chains of memory.grow", fill(func(n int) []byte {
			return Code(I32Const(0), bytes.Repeat([]byte{0x40, 0}, n/2), Drop)
		})},
		{"chains of square roots", fill(func(n int) []byte {
			// f32.sqrt, to an i32 and back
			return Code(Op(0x43, 0, 0, 0, 0), bytes.Repeat(Code(Op(0x91), Op(0xbc, 0xbe)), n/3), Drop)
		})},
		{"branch tables", fill(func(n int) []byte {
			table := Block(I32Const(0), BrTable(targets[:min(len(targets), n/2)]...))
			return bytes.Repeat(table, max(1, n/len(table)))
		})},
		{"frames", fill(repeat(Code(I32Const(0), Op(0x04, 0x40, 0x05), End())))}, // an if with an empty else
		{"blocks", fill(repeat(Block()))},
		{"conditions", fill(func(n int) []byte { return Block(repeat(Code(I32Const(0), BrIf(0)))(n)) })},
		{"calls", fill(repeat(Code(I32Const(0), Call(0), Drop)))}, // of its own reserve
	}
}

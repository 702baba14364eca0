package testguest

// slowPages is the memory in which a slow program works: a ring of pointers, and the space after it.
const slowPages = ringPages + 64

// Slow makes a guest that computes without end from any bytes. Each two bytes give one or a few instructions
// that are slow for their fuel: the first byte selects them, the second their size or number. A program has
// several phases, so that it can be quick until its host expects that, and then slow. A search over programs
// finds those that use a processor for longest between two checks of the host.
func Slow(service string, program []byte) []byte {
	p := slowProgram{left: program}
	var phases []byte
	for len(p.left) > 0 {
		phases = append(phases, p.phase()...)
	}
	if phases == nil {
		phases = Code(Get(1), Load32(0), Set(1))
	}
	h := hostile{
		service: service, pages: slowPages, initialize: ringCode(),
		imports: []Import{
			{wasiModule, "fd_write", Types(I32, I32, I32, I32), Types(I32)},
			{wasiModule, "random_get", Types(I32, I32), Types(I32)},
			{wasiModule, "poll_oneoff", Types(I32, I32, I32, I32), Types(I32)},
		},
		command: Code(I32Const(hostileFree), Set(1), f64Bits(0x000f_ffff_ffff_ffff), Set(5), I64Const(-1<<62+12345),
			Set(4), endless(phases)),
		with: func(b *Builder) {
			b.Table(10_000)
			// _initialize comes before.
			f := b.Func(nil, nil, nil)
			b.ElementRaw(3, 0, 1, byte(f))
			b.Func(Types(I32, I32), Types(I32), nil,
				Get(0), If(Get(0), I32Const(1), I32Sub, Get(1), Call(f+1), Set(1)), Get(1), times(60, Load32(0)))
		},
	}
	return h.bytes()
}

const wasiModule = "wasi_snapshot_preview1"

// maxPhase bounds the instructions of a phase. Each is repeated up to maxRepeats times, so the module stays
// small.
const (
	maxPhase   = 16
	maxRepeats = 256
)

type slowProgram struct{ left []byte }

// take returns the next byte. After the last byte it returns zeros.
func (p *slowProgram) take() byte {
	if len(p.left) == 0 {
		return 0
	}
	b := p.left[0]
	p.left = p.left[1:]
	return b
}

// phase runs some instructions 1 to 2^24 times.
func (p *slowProgram) phase() []byte {
	runs := int32(1) << (p.take() % 25)
	var body []byte
	for range 1 + p.take()%maxPhase {
		body = append(body, p.instruction()...)
	}
	return Code(I32Const(0), Set(3), Loop(body, Get(3), I32Const(1), I32Add, tee(3), I32Const(runs), i32LtU, BrIf(0)))
}

// instruction returns one of the slow or one of the quick instructions.
func (p *slowProgram) instruction() []byte {
	which, arg := p.take(), int(p.take())
	n := 1 + arg%maxRepeats
	at := I32Const(hostileFree + int32(arg)<<12)
	size := I32Const(int32(1) << (arg % 23)) // up to 4 MiB
	// Walk through the memory after the ring, in steps of up to 32 KiB.
	walk := Code(Get(2), I32Const(int32(64)<<(arg%10)), I32Add, I32Const(slowPages<<16-1<<16), I32And, Set(2))
	const writable = hostileFree + ringPages<<16
	switch which % 22 {
	case 0:
		return chaseCode(n)
	case 1:
		return times(n, Code(Get(2), I32Const(1), I32Add, Set(2)))
	case 2:
		return Code(walk, Get(2), Load32(hostileFree), Drop)
	case 3:
		return Code(Get(3), I32Const(12), i32Shl, I32Const(32<<16-1), I32And, I32Const(1), Store8(writable))
	case 4:
		return Code(Get(5), times(n, Code(f64Bits(0x3fef_ffff_ffff_ffff), f64Mul)), Set(5), keepResult(5))
	case 5:
		return Code(Get(5), times(n, Code(f64Sqrt, f64Bits(0x3fef_0000_0000_0007), f64Div)), Set(5), keepResult(5))
	case 6:
		return Code(Get(4), times(n, Code(I64Const(3), i64DivS, I64Const(-1<<62+999), I64Add)), Set(4))
	case 7:
		return times(n, Op(0xd2, 3+hostileFunctions+1, 0x1a)) // ref.func
	case 8:
		return times(n, Code(I32Const(0), MemoryGrow, Drop))
	case 9:
		return times(n, Code(refNull, I32Const(0), tableGrow, Drop))
	case 10:
		return Code(I32Const(writable), at, size, MemoryCopy)
	case 11:
		return Code(I32Const(writable), I32Const(int32(arg)), size, MemoryFill)
	case 12:
		return Code(I32Const(0), I32Const(1), I32Const(int32(min(39*arg, 9_999))), tableCopy)
	case 13:
		return Code(I32Const(0), refNull, I32Const(int32(min(39*arg, 10_000))), tableFill)
	case 14:
		return times(n, Code(I32Const(int32(arg)), Op(0x25, 0), Drop)) // table.get
	case 15:
		return Code(I32Const(1), I32Const(hostileFree), I32Const(int32(arg)), I32Const(hostileIovecs), Call(0), Drop)
	case 16:
		return Code(I32Const(writable), size, Call(1), Drop)
	case 17:
		return Code(I32Const(hostileFree), I32Const(writable), I32Const(int32(n)), I32Const(hostileIovecs), Call(2),
			Drop)
	case 18:
		return Code(I32Const(int32(16*n)), Get(1), Call(3+hostileFunctions+2), Set(1))
	case 19:
		return times(n, Code(I64Const(1), Set(4)))
	case 20:
		return Code(MemorySize, Drop, walk, Get(2), Load64(hostileFree), Set(4))
	default:
		return Code(Get(2), I32Const(int32(arg)), I32Mul, Set(2))
	}
}

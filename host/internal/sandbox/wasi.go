package sandbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/tetratelabs/wazero/api"
)

// errno is the result of a system call, in WASI's numbering.
type errno uint32

const (
	errnoSuccess errno = 0
	errnoBadf    errno = 8
	errnoFault   errno = 21
	errnoInval   errno = 28
	errnoNosys   errno = 52
	errnoNotsock errno = 57
	errnoSpipe   errno = 70
)

// clockStep is how far the monotonic clock advances with each reading. So a guest that measures time gets a
// value above zero, and the same one on every machine.
const clockStep = 1000 // ns

// ambient is what a guest sees of the outside world: all of it comes with the command. The goroutine that
// runs the instance owns it.
type ambient struct {
	now    uint64 // Unix time, ns; poll_oneoff advances it
	steps  uint64 // readings of the monotonic clock
	seed   [32]byte
	seeded bool // rng has been seeded for this call
	rng    rand.ChaCha8
}

// begin sets time and seed for one call. Requests other than commands have a seed of zeros.
func (a *ambient) begin(now journal.UnixNano, seed [abi.SeedSize]byte) {
	a.now = uint64(max(now, 0))
	a.steps = 0
	a.seeded = false
	copy(a.seed[:], seed[:])
	copy(a.seed[abi.SeedSize:], "bulkhead random1")
}

func (a *ambient) random(b []byte) {
	if !a.seeded {
		a.rng.Seed(a.seed)
		a.seeded = true
	}
	_, _ = a.rng.Read(b) // is documented to return no error
}

// advance moves the clock, up to the maximum time.
func (a *ambient) advance(ns uint64) {
	a.now = min(a.now+min(ns, math.MaxInt64), math.MaxInt64)
}

func wasiFunctions() map[string]*hostFunc {
	m := map[string]*hostFunc{
		"proc_exit": {run: func(_ *Instance, _ api.Memory, s []uint64) {
			panic(&hostTrap{service.KindGuestExit, fmt.Sprintf("the guest called proc_exit(%d); a service has no end "+
				"of its own", uint32(s[0]))})
		}},
	}
	add := func(name string, run func(i *Instance, mem api.Memory, s []uint64) errno) {
		m[name] = &hostFunc{run: func(i *Instance, mem api.Memory, s []uint64) {
			s[0] = uint64(run(i, mem, s))
		}}
	}
	answer := func(e errno) func(*Instance, api.Memory, []uint64) errno {
		return func(*Instance, api.Memory, []uint64) errno { return e }
	}
	// stdio returns e for the three open descriptors, and EBADF for all others.
	stdio := func(e errno) func(*Instance, api.Memory, []uint64) errno {
		return func(_ *Instance, _ api.Memory, s []uint64) errno {
			if uint32(s[0]) > 2 {
				return errnoBadf
			}
			return e
		}
	}
	add("args_get", answer(errnoSuccess))
	add("args_sizes_get", wasiNoSizes)
	add("environ_get", answer(errnoSuccess))
	add("environ_sizes_get", wasiNoSizes)
	add("clock_res_get", wasiClockResGet)
	add("clock_time_get", wasiClockTimeGet)
	add("random_get", wasiRandomGet)
	add("poll_oneoff", wasiPollOneoff)
	add("sched_yield", answer(errnoSuccess))
	add("proc_raise", answer(errnoNosys))

	add("fd_write", wasiFdWrite)
	add("fd_fdstat_get", wasiFdstatGet)
	add("fd_filestat_get", wasiFilestatGet)
	add("fd_fdstat_set_flags", stdio(errnoSuccess))
	add("fd_fdstat_set_rights", stdio(errnoNosys))
	add("fd_close", stdio(errnoSuccess))
	add("fd_datasync", stdio(errnoSuccess))
	add("fd_sync", stdio(errnoSuccess))
	add("fd_seek", stdio(errnoSpipe))
	add("fd_tell", stdio(errnoSpipe))
	add("fd_advise", stdio(errnoSpipe))
	add("fd_allocate", stdio(errnoBadf))
	add("fd_filestat_set_size", stdio(errnoInval))
	add("fd_filestat_set_times", stdio(errnoNosys))
	// fd_prestat_get would report preopened directories; EBADF ends a guest's search for them.
	add("fd_prestat_get", answer(errnoBadf))
	add("fd_prestat_dir_name", answer(errnoBadf))
	add("fd_read", answer(errnoBadf))
	add("fd_pread", answer(errnoBadf))
	add("fd_pwrite", stdio(errnoSpipe))
	add("fd_readdir", answer(errnoBadf))
	add("fd_renumber", answer(errnoBadf))

	add("path_create_directory", answer(errnoBadf))
	add("path_filestat_get", answer(errnoBadf))
	add("path_filestat_set_times", answer(errnoBadf))
	add("path_link", answer(errnoBadf))
	add("path_open", answer(errnoBadf))
	add("path_readlink", answer(errnoBadf))
	add("path_remove_directory", answer(errnoBadf))
	add("path_rename", answer(errnoBadf))
	add("path_symlink", answer(errnoBadf))
	add("path_unlink_file", answer(errnoBadf))

	add("sock_accept", stdio(errnoNotsock))
	add("sock_recv", stdio(errnoNotsock))
	add("sock_send", stdio(errnoNotsock))
	add("sock_shutdown", stdio(errnoNotsock))
	return m
}

// wasiNoSizes reports no arguments and no environment.
func wasiNoSizes(_ *Instance, mem api.Memory, s []uint64) errno {
	if !mem.WriteUint32Le(uint32(s[0]), 0) || !mem.WriteUint32Le(uint32(s[1]), 0) {
		return errnoFault
	}
	return errnoSuccess
}

func wasiClockResGet(_ *Instance, mem api.Memory, s []uint64) errno {
	if uint32(s[0]) > 3 {
		return errnoInval
	}
	if !mem.WriteUint64Le(uint32(s[1]), clockStep) {
		return errnoFault
	}
	return errnoSuccess
}

// wasiClockTimeGet returns the command's time. Only poll_oneoff advances the realtime clock (0); the others
// advance one step with each reading.
func wasiClockTimeGet(i *Instance, mem api.Memory, s []uint64) errno {
	now := i.ambient.now
	switch id := uint32(s[0]); {
	case id > 3:
		return errnoInval
	case id > 0:
		i.ambient.steps++
		now += i.ambient.steps * clockStep
	}
	if !mem.WriteUint64Le(uint32(s[2]), now) {
		return errnoFault
	}
	return errnoSuccess
}

func wasiRandomGet(i *Instance, mem api.Memory, s []uint64) errno {
	b, ok := mem.Read(uint32(s[0]), uint32(s[1]))
	if !ok {
		return errnoFault
	}
	return i.inSteps(uint32(len(b)), stepBytes, fuelRandomByte, func(from, to uint32) errno {
		i.ambient.random(b[from:to])
		return errnoSuccess
	})
}

var newline = []byte{'\n'}

// wasiFdWrite turns what is written to stdout and stderr into log lines.
func wasiFdWrite(i *Instance, mem api.Memory, s []uint64) errno {
	fd := uint32(s[0])
	if fd != 1 && fd != 2 {
		return errnoBadf
	}
	count := uint32(s[2])
	if count > math.MaxUint32/8 {
		return errnoFault
	}
	vectors, ok := mem.Read(uint32(s[1]), count*8)
	if !ok {
		return errnoFault
	}
	var written uint32
	e := i.inSteps(count, stepItems, fuelVector, func(from, to uint32) errno {
		for v := vectors[from*8 : to*8]; len(v) > 0; v = v[8:] {
			b, ok := mem.Read(binary.LittleEndian.Uint32(v), binary.LittleEndian.Uint32(v[4:]))
			if !ok {
				return errnoFault
			}
			if uint64(written)+uint64(len(b)) > math.MaxUint32 {
				return errnoInval
			}
			written += uint32(len(b))
			i.writeLog(int(fd-1), b)
		}
		return errnoSuccess
	})
	if e == errnoSuccess && !mem.WriteUint32Le(uint32(s[3]), written) {
		return errnoFault
	}
	return e
}

// writeLog charges for bytes written to stdout (0) or stderr (1), and logs them. Bytes beyond the call's
// budget count as written, but are not read and are dropped.
func (i *Instance) writeLog(stream int, b []byte) {
	for len(b) > 0 {
		n := min(len(b), stepBytes, i.log.wanted(stream))
		if n <= 0 {
			return
		}
		piece := b[:n]
		b = b[n:]
		if i.log.cut {
			i.spend(int64(n) / bytesPerFuel)
		} else {
			i.spend(i.log.cost(n, bytes.Count(piece, newline)))
		}
		i.log.write(stream, piece)
	}
}

// Types of files, in WASI's numbering.
const filetypeCharacterDevice = 2

// wasiFdstatGet returns struct fdstat (24 bytes: type u8, flags u16 at 2, rights u64 at 8, inheriting rights
// u64 at 16) for the three standard descriptors.
func wasiFdstatGet(_ *Instance, mem api.Memory, s []uint64) errno {
	fd := uint32(s[0])
	if fd > 2 {
		return errnoBadf
	}
	var stat [24]byte
	stat[0] = filetypeCharacterDevice
	if fd > 0 {
		const rightFdWrite = 1 << 6
		binary.LittleEndian.PutUint16(stat[2:], 1) // append
		binary.LittleEndian.PutUint64(stat[8:], rightFdWrite)
	}
	if !mem.Write(uint32(s[1]), stat[:]) {
		return errnoFault
	}
	return errnoSuccess
}

// wasiFilestatGet returns struct filestat (64 bytes: device, inode, type u8 at 16, links, size, three times)
// for the three standard descriptors.
func wasiFilestatGet(_ *Instance, mem api.Memory, s []uint64) errno {
	if uint32(s[0]) > 2 {
		return errnoBadf
	}
	var stat [64]byte
	stat[16] = filetypeCharacterDevice
	if !mem.Write(uint32(s[1]), stat[:]) {
		return errnoFault
	}
	return errnoSuccess
}

// Sizes of poll_oneoff's records, and the types of events in them.
const (
	subscriptionBytes = 48 // userdata u64, type u8 at 8; clock: id u32 at 16, timeout u64 at 24, flags u16 at 40
	pollEventBytes    = 32 // userdata u64, errno u16 at 8, type u8 at 10
	pollClock         = 0
	pollRead          = 1
	pollWrite         = 2
)

// wasiPollOneoff does not wait: it moves the clock to the earliest timeout and reports that timeout.
// Descriptors are ready at once: stdout and stderr for writing, all others with EBADF.
func wasiPollOneoff(i *Instance, mem api.Memory, s []uint64) errno {
	in, out, n, result := uint32(s[0]), uint32(s[1]), uint32(s[2]), uint32(s[3])
	if n == 0 {
		return errnoInval
	}
	if n > math.MaxUint32/subscriptionBytes {
		return errnoFault
	}
	subs, ok := mem.Read(in, n*subscriptionBytes)
	if !ok {
		return errnoFault
	}
	if _, ok := mem.Read(out, n*pollEventBytes); !ok {
		return errnoFault
	}
	soonest, files := uint64(math.MaxUint64), false
	i.inSteps(n, stepItems, fuelPoll, func(from, to uint32) errno {
		for k := subs[from*subscriptionBytes : to*subscriptionBytes]; len(k) > 0; k = k[subscriptionBytes:] {
			if k[8] == pollClock {
				soonest = min(soonest, i.ambient.timeout(k))
			} else {
				files = true
			}
		}
		return errnoSuccess
	})
	if files {
		soonest = 0
	}
	var events uint32
	e := i.inSteps(n, stepItems, fuelPoll, func(from, to uint32) errno {
		for k := from; k < to; k++ {
			// Copy the record first: the guest may let the two arrays overlap.
			sub := [subscriptionBytes]byte(subs[k*subscriptionBytes:])
			event, ready, e := i.ambient.poll(&sub, soonest)
			if e != errnoSuccess {
				return e
			}
			if ready {
				mem.Write(out+events*pollEventBytes, event[:])
				events++
			}
		}
		return errnoSuccess
	})
	if e != errnoSuccess {
		return e
	}
	i.ambient.advance(soonest)
	if !mem.WriteUint32Le(result, events) {
		return errnoFault
	}
	return errnoSuccess
}

// poll returns the event of a subscription if the clock moves on by soonest, and whether there is one.
func (a *ambient) poll(sub *[subscriptionBytes]byte, soonest uint64) (event [pollEventBytes]byte, ready bool, e errno) {
	copy(event[:8], sub[:8])
	event[10] = sub[8]
	switch sub[8] {
	case pollClock:
		return event, a.timeout(sub[:]) <= soonest, errnoSuccess
	case pollRead, pollWrite:
		if fd := binary.LittleEndian.Uint32(sub[16:]); sub[8] == pollRead || fd != 1 && fd != 2 {
			binary.LittleEndian.PutUint16(event[8:], uint16(errnoBadf))
		}
		return event, true, errnoSuccess
	}
	return event, false, errnoInval
}

// timeout is how long a clock subscription waits from now.
func (a *ambient) timeout(sub []byte) uint64 {
	t := binary.LittleEndian.Uint64(sub[24:])
	if sub[40]&1 == 0 {
		return t // relative
	}
	if t <= a.now {
		return 0
	}
	return t - a.now
}

package fair

import "time"

// epoch is where Now begins.
var epoch = time.Now()

// Now is monotonic time in nanoseconds.
func Now() int64 { return int64(time.Since(epoch)) }

// LongLap is the time by the clock, in nanoseconds, beyond which it is not taken for processor time:
// the thread may have waited for a processor.
const LongLap = 1_000_000

// Lap is a stretch of work that is measured: a slice of a guest, or what the host does for it.
type Lap struct {
	began int64 // of Now
	cpu   int64 // ThreadTime then, or Unread
}

// What the processor time of a thread is if there is none.
const (
	Unread = -1 // it was not asked
	Untold = -2 // the system does not tell
)

// StartLap begins a lap now. exactly has the processor time of the thread read at once, which takes
// half a microsecond.
func StartLap(now int64, exactly bool) Lap {
	if exactly {
		return Lap{now, ThreadTime()}
	}
	return Lap{now, Unread}
}

// LapFrom is a lap that began at an instant of [Now], at which [ThreadTime] was thread.
func LapFrom(began, thread int64) Lap { return Lap{began, thread} }

// Took is the processor time of the lap, in nanoseconds: up to a millisecond as the
// clock says, beyond that as the thread's own processor time says. If that was not
// read when the lap began, nobody knows, and it counts as a millisecond. exactly has
// it read in any case.
//
// A goroutine may change its thread in the midst of a lap. That is rare, as guests
// are not preempted; then it is a number between nothing and what the clock says.
func (l Lap) Took(now int64, exactly bool) int64 {
	elapsed := max(now-l.began, 0)
	switch {
	case elapsed <= LongLap && !exactly, l.cpu == Untold:
		return elapsed
	case l.cpu == Unread:
		return min(elapsed, LongLap)
	}
	return min(max(ThreadTime()-l.cpu, 0), elapsed)
}

// Read reports whether the thread's processor time was read when the lap began, or is not to be had.
func (l Lap) Read() bool { return l.cpu != Unread }

// Elapsed is how long the lap has lasted by the clock, in nanoseconds.
func (l Lap) Elapsed(now int64) int64 { return now - l.began }

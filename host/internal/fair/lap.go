package fair

import "time"

// epoch is the zero of Now.
var epoch = time.Now()

// Now is monotonic time in nanoseconds.
func Now() int64 { return int64(time.Since(epoch)) }

// LongLap is the time by the clock, in nanoseconds, above which it does not count as processor time: the
// thread may have waited for a processor.
const LongLap = 1_000_000

// Lap is a measured stretch of work: a slice of a guest, or work of the host for it.
type Lap struct {
	began int64 // in the time of Now
	cpu   int64 // ThreadTime at that time, or Unread
}

// Values of a thread's processor time if it is not known.
const (
	Unread = -1 // it was not read
	Untold = -2 // the system does not tell
)

// StartLap begins a lap now. If exactly is true, it reads the thread's processor time, which takes half a
// microsecond.
func StartLap(now int64, exactly bool) Lap {
	if exactly {
		return Lap{now, ThreadTime()}
	}
	return Lap{now, Unread}
}

// LapFrom is a lap that began at an instant of [Now], when [ThreadTime] was thread.
func LapFrom(began, thread int64) Lap { return Lap{began, thread} }

// Took is the processor time of the lap, in nanoseconds. Up to a millisecond it is the time by the clock;
// beyond that it is the thread's own processor time. If that was not read at the beginning of the lap, it
// counts as a millisecond. If exactly is true, the thread's processor time is read in any case.
//
// A goroutine may change its thread during a lap. That is rare, as guests are not preempted. The result is
// then between zero and the time by the clock.
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

// Read reports whether the thread's processor time was read when the lap began, or cannot be read.
func (l Lap) Read() bool { return l.cpu != Unread }

// Elapsed is how long the lap has lasted by the clock, in nanoseconds.
func (l Lap) Elapsed(now int64) int64 { return now - l.began }

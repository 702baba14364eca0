package loadgen

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Counts are the numbers of outcomes that clients were told.
type Counts struct {
	Committed uint64 `json:"committed"`
	Rejected  uint64 `json:"rejected"` // by the bank: overdrafts
	Again     uint64 `json:"again"`    // attempts that were repeated, after an overload or an unknown outcome
	Events    uint64 `json:"events"`   // of the committed commands
}

func (c *Counts) add(d Counts) {
	c.Committed += d.Committed
	c.Rejected += d.Rejected
	c.Again += d.Again
	c.Events += d.Events
}

// Result is what a load measured. A latency is that of a whole command, from the first attempt to
// the known outcome.
type Result struct {
	Clients  int           `json:"clients"`
	Accounts int           `json:"accounts"`
	Alpha    float64       `json:"alpha"`
	Elapsed  time.Duration `json:"elapsed_ns"`
	Counts
	PerSecond float64       `json:"per_second"` // commands with a known outcome
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	P999      time.Duration `json:"p999_ns"`
	Max       time.Duration `json:"max_ns"`
}

// newLatency makes a histogram for 1 µs to 10 min with two significant digits, 40 KiB in size.
// Longer times are not counted.
func newLatency() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(10*time.Minute), 2)
}

func (r *Result) summarise(h *hdrhistogram.Histogram) {
	if r.Elapsed > 0 {
		r.PerSecond = float64(r.Committed+r.Rejected) / r.Elapsed.Seconds()
	}
	r.P50 = time.Duration(h.ValueAtPercentile(50))
	r.P99 = time.Duration(h.ValueAtPercentile(99))
	r.P999 = time.Duration(h.ValueAtPercentile(99.9))
	r.Max = time.Duration(h.Max())
}

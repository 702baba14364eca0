package logging

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/lifecycle"
)

// A line is charged to the service that its attribute "service" names. If it has none, but a
// "request", it is charged to one account for all clients. All other lines are the host's own and
// are not bounded.
const (
	serviceKey = "service"
	requestKey = "request"
)

// clients names the account of lines about requests without a service, and of services beyond
// maxAccounts.
const clients = ""

// maxAccounts bounds the number of accounts. A service gets one with its first line.
const maxAccounts = 16384

// noticeEvery is the minimum time between two reports of dropped lines.
const noticeEvery = time.Second

// BudgetOptions configure a [Budget]. A zero field means its default.
type BudgetOptions struct {
	// Rate is the number of bytes per second for each service. Negative: unlimited. Default 64 KiB.
	Rate int64
	// Burst is the number of bytes that a service may log at once after a pause. Default 256 KiB.
	// Values below 16 KiB count as 16 KiB, so that one line always fits.
	Burst int64
}

// Budget is a [slog.Handler] that applies a rate limit to the lines about each service and passes
// the rest on to another handler. It charges a line with an estimate of its size as text, before
// the line is formatted. A line that exceeds the limit is dropped and counted; about a second later
// one line reports how many were dropped. Its methods are safe for concurrent use.
type Budget struct {
	to    slog.Handler
	rate  float64 // bytes per second
	burst float64 // bytes

	mu       sync.Mutex // guards all below, and the accounts
	accounts map[string]*account

	wake chan struct{} // capacity 1: an account has something to report
	stop chan struct{} // closed by Close
	life lifecycle.Life
}

// account is the token bucket of one service, and the count of its dropped lines.
type account struct {
	room      float64   // bytes that the service may log at the time at
	at        time.Time // of the last line
	dropped   Dropped   // since the start
	reported  Dropped   // the part of dropped that has been reported
	announced bool      // the account waits for a report
}

// Dropped counts lines that were not logged.
type Dropped struct{ Lines, Bytes uint64 }

// NewBudget returns a budget in front of the handler to, and starts its goroutine, which
// [Budget.Close] ends.
func NewBudget(to slog.Handler, o BudgetOptions) *Budget {
	if o.Rate == 0 {
		o.Rate = 64 << 10
	}
	if o.Burst == 0 {
		o.Burst = 256 << 10
	}
	b := &Budget{
		to: to, rate: float64(o.Rate), burst: float64(max(o.Burst, 16<<10)), accounts: map[string]*account{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	b.life.Go(b.reportAll)
	return b
}

// Close reports the drops that have not been reported yet. Afterwards lines are still passed on, and
// dropped, but drops are not reported.
func (b *Budget) Close(ctx context.Context) error {
	return b.life.Close(ctx, func() { close(b.stop) }, nil)
}

// Dropped returns what was dropped of a service since the start.
func (b *Budget) Dropped(service string) Dropped {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.accounts[service]; a != nil {
		return a.dropped
	}
	return Dropped{}
}

// Usage is how much of their bursts all services have used, in bytes. It falls again at the rate.
type Usage struct {
	Used    int64
	Limit   int64    // sum of the bursts of all accounts; 0: nothing has been logged, or the rate is unlimited
	Dropped Dropped  // since the start
	Holders []Holder // those with the largest use, in descending order
}

// Holder is a service, or all clients together, and how much of its burst it has used, in bytes.
type Holder struct {
	Name string
	Used int64
}

// usageHolders bounds the number of holders in a [Usage].
const usageHolders = 5

// Usage returns how much of the budget is used now, and by which services.
func (b *Budget) Usage() Usage {
	var u Usage
	now := time.Now()
	b.mu.Lock()
	for name, a := range b.accounts {
		u.Dropped.Lines += a.dropped.Lines
		u.Dropped.Bytes += a.dropped.Bytes
		u.Limit += int64(b.burst)
		used := int64(b.burst - b.roomOf(a, now))
		u.Used += used
		if name == clients {
			name = "clients"
		}
		if used > 0 {
			u.Holders = append(u.Holders, Holder{name, used})
		}
	}
	b.mu.Unlock()
	slices.SortFunc(u.Holders, func(x, y Holder) int {
		return cmp.Or(cmp.Compare(y.Used, x.Used), cmp.Compare(x.Name, y.Name))
	})
	u.Holders = u.Holders[:min(usageHolders, len(u.Holders))]
	return u
}

// roomOf returns how many bytes an account may log now. The caller holds mu.
func (b *Budget) roomOf(a *account, now time.Time) float64 {
	return min(a.room+b.rate*max(now.Sub(a.at), 0).Seconds(), b.burst)
}

// Logger returns a logger whose lines are subject to the budget.
func (b *Budget) Logger() *slog.Logger { return slog.New(budgeted{budget: b, to: b.to}) }

// take charges a line of size bytes to an account. It returns false if the line has to be dropped.
func (b *Budget) take(name string, size int) bool {
	if b.rate < 0 {
		return true
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[name]
	if a == nil {
		if len(b.accounts) >= maxAccounts {
			name = clients
			a = b.accounts[name]
		}
		if a == nil {
			a = &account{room: b.burst, at: now}
			b.accounts[name] = a
		}
	}
	a.room = b.roomOf(a, now)
	a.at = now
	if a.room >= float64(size) {
		a.room -= float64(size)
		return true
	}
	a.dropped.Lines++
	a.dropped.Bytes += uint64(size)
	if !a.announced {
		a.announced = true
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
	return false
}

// reportAll is the goroutine. It reports dropped lines, at most once every noticeEvery.
func (b *Budget) reportAll() {
	for {
		select {
		case <-b.wake:
		case <-b.stop:
			b.report()
			return
		}
		timer := time.NewTimer(noticeEvery)
		select {
		case <-timer.C:
		case <-b.stop:
			timer.Stop()
		}
		b.report()
	}
}

// report logs one line for each account that has dropped lines since its last report.
func (b *Budget) report() {
	news := map[string]Dropped{}
	b.mu.Lock()
	for name, a := range b.accounts {
		if a.announced {
			news[name] = Dropped{a.dropped.Lines - a.reported.Lines, a.dropped.Bytes - a.reported.Bytes}
			a.reported, a.announced = a.dropped, false
		}
	}
	b.mu.Unlock()
	own := slog.New(b.to)
	for _, name := range slices.Sorted(maps.Keys(news)) {
		d := news[name]
		about := slog.String(serviceKey, name)
		if name == clients {
			about = slog.String(requestKey, "any")
		}
		own.LogAttrs(context.Background(), slog.LevelWarn, fmt.Sprintf("%d lines dropped, as more was logged than "+
			"the log's rate allows", d.Lines), about, slog.Uint64("bytes", d.Bytes))
	}
}

// budgeted is the [slog.Handler] of the loggers that [Budget.Logger] returns.
type budgeted struct {
	budget  *Budget
	to      slog.Handler
	service string // named by the attributes of all lines; "" if none
	request bool   // the attributes of all lines name a request
	size    int    // bytes of the attributes of all lines
	grouped bool   // further attributes are in a group, so their keys do not name a service or request
}

// Enabled implements slog.Handler.
func (h budgeted) Enabled(ctx context.Context, l slog.Level) bool { return h.to.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (h budgeted) Handle(ctx context.Context, r slog.Record) error {
	h.size += lineBytes + shown(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		h.note(a)
		return true
	})
	if (h.service != "" || h.request) && !h.budget.take(h.service, h.size) {
		return nil
	}
	return h.to.Handle(ctx, r)
}

// note adds an attribute's size, and looks whether it names a service or request.
func (h *budgeted) note(a slog.Attr) {
	h.size += len(a.Key) + sizeOf(a.Value) + 2
	switch {
	case h.grouped:
	case a.Key == serviceKey:
		h.service = a.Value.String()
	case a.Key == requestKey:
		h.request = true
	}
}

// WithAttrs implements slog.Handler.
func (h budgeted) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		h.note(a)
	}
	h.to = h.to.WithAttrs(attrs)
	return h
}

// WithGroup implements slog.Handler.
func (h budgeted) WithGroup(name string) slog.Handler {
	h.grouped = h.grouped || name != ""
	h.to = h.to.WithGroup(name)
	return h
}

// lineBytes estimates the bytes of time, level and keys in a line.
const lineBytes = 80

// sizeOf estimates the bytes of a value in a line.
func sizeOf(v slog.Value) int {
	switch v.Kind() {
	case slog.KindString:
		return shown(v.String())
	case slog.KindGroup:
		n := 0
		for _, a := range v.Group() {
			n += len(a.Key) + sizeOf(a.Value) + 2
		}
		return n
	case slog.KindAny, slog.KindLogValuer:
		return shown(v.String())
	}
	return 20
}

// shown returns the length of a text with quotes and escapes.
func shown(s string) int {
	n := len(s) + 2
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			n++
		}
	}
	return n
}

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
)

// The attributes by which a line is charged: to the service that it is about, or else to all
// clients together, if it is about a request. Other lines are the host's own and are not bounded.
const (
	serviceKey = "service"
	requestKey = "request"
)

// clients is the account of lines about requests that name no service, and of services beyond accountsMost.
const clients = ""

// accountsMost bounds the accounts. There are as many as services that have logged something.
const accountsMost = 16384

// noticeEvery is the time between two lines that tell what was dropped of a service.
const noticeEvery = time.Second

// BudgetOptions are the choices of a [Budget]. A zero field means its default.
type BudgetOptions struct {
	Rate  int64 // bytes a second of each service. Negative: without bound. Default 64 KiB
	Burst int64 // bytes that a service which was silent may log at once. Default 256 KiB, and never below 16 KiB, so that each line has room
}

// Budget is a [slog.Handler] in front of another that holds the lines about each service to a rate. A line is
// charged with about what it takes as text, before it is made; one for which there is no room is dropped and
// counted, and how many were dropped is logged a second later.
type Budget struct {
	to    slog.Handler
	rate  float64 // bytes a second
	burst float64

	mu       sync.Mutex // guards all below, and the accounts
	accounts map[string]*account
	stopped  bool

	wake chan struct{} // capacity 1: something is to be told
	stop chan struct{}
	run  sync.WaitGroup
}

// account is what a service has logged.
type account struct {
	room      float64   // bytes that it may log at the time at
	at        time.Time // of the last line
	dropped   Dropped
	told      Dropped // of them
	announced bool    // that there is something to tell
}

// Dropped counts lines that were not logged.
type Dropped struct{ Lines, Bytes uint64 }

// NewBudget returns a budget in front of to, and starts its goroutine. Stop it.
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
	b.run.Go(b.tellAll)
	return b
}

// Stop tells what was not told yet, and returns when the goroutine is gone. Lines are still passed on afterwards.
func (b *Budget) Stop() {
	b.mu.Lock()
	if !b.stopped {
		b.stopped = true
		close(b.stop)
	}
	b.mu.Unlock()
	b.run.Wait()
}

// Dropped is what was dropped of a service since the start.
func (b *Budget) Dropped(service string) Dropped {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.accounts[service]; a != nil {
		return a.dropped
	}
	return Dropped{}
}

// Usage is how much of what they may log at once all services have used, in bytes: what
// comes back to them at the rate.
type Usage struct {
	Used    int64
	Limit   int64    // what all that have logged something may log at once; 0: there is no bound
	Dropped Dropped  // since the start
	Holders []Holder // those that have used most, the largest first
}

// Holder is a service, or all clients together, and how much of its burst it has used, in
// bytes.
type Holder struct {
	Name string
	Used int64
}

// usageHolders bounds how many services are named in a usage.
const usageHolders = 5

// Usage tells how much of the log's rate is used now, and by whom.
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

// roomOf is what an account may log now, in bytes. The caller holds mu.
func (b *Budget) roomOf(a *account, now time.Time) float64 {
	return min(a.room+b.rate*max(now.Sub(a.at), 0).Seconds(), b.burst)
}

// Logger is a logger whose lines are held to the budget.
func (b *Budget) Logger() *slog.Logger { return slog.New(budgeted{budget: b, to: b.to}) }

// take charges a line to an account. false means that it is to be dropped.
func (b *Budget) take(name string, size int) bool {
	if b.rate < 0 {
		return true
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[name]
	if a == nil {
		if len(b.accounts) >= accountsMost {
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

// tellAll logs what was dropped, a while after the first line was.
func (b *Budget) tellAll() {
	for {
		select {
		case <-b.wake:
		case <-b.stop:
			b.tell()
			return
		}
		timer := time.NewTimer(noticeEvery)
		select {
		case <-timer.C:
		case <-b.stop:
			timer.Stop()
		}
		b.tell()
	}
}

// tell logs one line for each account that has lost some since the last time.
func (b *Budget) tell() {
	news := map[string]Dropped{}
	b.mu.Lock()
	for name, a := range b.accounts {
		if a.announced {
			news[name] = Dropped{a.dropped.Lines - a.told.Lines, a.dropped.Bytes - a.told.Bytes}
			a.told, a.announced = a.dropped, false
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
		own.LogAttrs(context.Background(), slog.LevelWarn, fmt.Sprintf("%d lines dropped, as more was logged than the log's rate allows", d.Lines), about, slog.Uint64("bytes", d.Bytes))
	}
}

// budgeted is the handler.
type budgeted struct {
	budget  *Budget
	to      slog.Handler
	service string // of all lines
	request bool   // all lines are about one
	size    int    // of what is in all lines
	grouped bool   // further attributes are in a group, where names mean something else
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

// note takes an attribute into account.
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

// lineBytes is about what time, level and names take in a line.
const lineBytes = 80

// sizeOf is about what a value takes in a line.
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

// shown is the length of a text with its quotes and what has to be escaped within.
func shown(s string) int {
	n := len(s) + 2
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			n++
		}
	}
	return n
}

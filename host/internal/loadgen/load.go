package loadgen

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Sender is one way into a host. Send returns a nil error if the command was committed, and a
// *service.Error otherwise. It may be called concurrently.
type Sender interface {
	Send(ctx context.Context, c service.Command) (service.Reply, error)
}

// Load describes a load on a bank.
type Load struct {
	Service  service.Name  // the bank; default "bank"
	Accounts int           // how many accounts there are; required
	Alpha    float64       // exponent of the Zipf distribution by which accounts are chosen; 0 is uniform
	Clients  int           // number of concurrent clients, each with one command at a time; default 64
	Duration time.Duration // when to stop; 0: no time limit
	Commands int           // when to stop; 0: no limit by number. One of the two is required
	Seed     uint64        // the same seed sends the same commands, whatever their outcome
	// Run distinguishes the command ids of this load from those of other loads on the same bank;
	// required.
	Run string
	// Progress, if set, is called from time to time with the number of commands done. Calls do not
	// overlap.
	Progress func(done int)
}

func (l Load) withDefaults() Load {
	if l.Service == "" {
		l.Service = "bank"
	}
	if l.Clients == 0 {
		l.Clients = 64
	}
	return l
}

func (l Load) validate() error {
	var errs []error
	if l.Accounts < 1 {
		errs = append(errs, fmt.Errorf("accounts is %d; there must be at least 1", l.Accounts))
	}
	if l.Alpha < 0 {
		errs = append(errs, fmt.Errorf("alpha is %g; it must be at least 0", l.Alpha))
	}
	if l.Clients < 1 {
		errs = append(errs, fmt.Errorf("clients is %d; there must be at least 1", l.Clients))
	}
	if l.Duration <= 0 && l.Commands <= 0 {
		errs = append(errs, errors.New("neither duration nor commands says when to stop"))
	}
	if l.Run == "" {
		errs = append(errs, errors.New("run is empty"))
	}
	return errors.Join(errs...)
}

// Account returns the key of account number i.
func Account(i int) service.Key { return service.Key("account-" + strconv.Itoa(i)) }

// openingDeposit is the first deposit of each account, in cents: enough that a load of a few
// minutes meets few overdrafts.
const openingDeposit = 100_000

// Open opens accounts 0 to l.Accounts-1 and makes a first deposit on each. The clients are assigned
// to the senders in turn. Rejections are counted, and overloads and unknown outcomes retried; any
// other error ends the load and is returned.
func Open(ctx context.Context, l Load, senders []Sender, books *Books) (Result, error) {
	l = l.withDefaults()
	l.Commands = l.Accounts
	return run(ctx, l, senders, books, func(c *client) func(context.Context, int) error {
		return func(ctx context.Context, n int) error {
			if err := c.send(ctx, "open-"+strconv.Itoa(n), n, "open", 0); err != nil {
				return err
			}
			return c.send(ctx, "first-"+strconv.Itoa(n), n, "deposit", openingDeposit)
		}
	})
}

// Run deposits and withdraws with equal probability. Senders and errors are treated as by [Open].
func Run(ctx context.Context, l Load, senders []Sender, books *Books) (Result, error) {
	return run(ctx, l.withDefaults(), senders, books, func(c *client) func(context.Context, int) error {
		zipf := NewZipf(c.rng, c.load.Accounts, c.load.Alpha)
		return func(ctx context.Context, n int) error {
			kind := service.Type("deposit")
			if c.rng.Uint64()&1 == 0 {
				kind = "withdraw"
			}
			return c.send(ctx, strconv.Itoa(n), scatter(zipf.Next(), c.load.Accounts), kind, 1+c.rng.Int64N(100))
		}
	})
}

// scatter maps ranks to accounts one to one, so that the frequently used accounts are not the ones
// that were opened first.
func scatter(rank, n int) int {
	const prime = 2_147_483_647 // larger than n, so the two have no common divisor
	return int(uint64(rank) * prime % uint64(n))
}

// client is one goroutine that sends and waits.
type client struct {
	load    *Load
	books   *Books
	sender  Sender
	rng     *rand.Rand
	latency *hdrhistogram.Histogram
	counts  Counts
}

// run runs the clients until the load is done. script returns a client's step, which sends the
// command or commands of number n.
func run(ctx context.Context, l Load, senders []Sender, books *Books,
	script func(*client) func(context.Context, int) error) (Result, error) {
	if err := l.validate(); err != nil {
		return Result{}, fmt.Errorf("load: %w", err)
	}
	// The end of the duration does not cancel commands under way, as their outcome belongs into the
	// books. It only keeps the clients from starting new ones.
	var stop atomic.Bool
	start := time.Now()
	if l.Duration > 0 {
		timer := time.AfterFunc(l.Duration, func() { stop.Store(true) })
		defer timer.Stop()
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	clients := make([]*client, l.Clients)
	var next atomic.Int64
	var wait sync.WaitGroup
	var progress sync.Mutex
	for i := range clients {
		c := &client{load: &l, books: books, sender: senders[i%len(senders)],
			rng: rand.New(rand.NewPCG(l.Seed, uint64(i))), latency: newLatency()}
		clients[i] = c
		step := script(c)
		wait.Go(func() {
			for !stop.Load() {
				n := int(next.Add(1)) - 1
				if l.Commands > 0 && n >= l.Commands {
					return
				}
				if err := step(ctx, n); err != nil {
					fail(err)
					return
				}
				if l.Progress != nil && n%1000 == 0 && progress.TryLock() {
					l.Progress(n)
					progress.Unlock()
				}
			}
		})
	}
	wait.Wait()
	r := Result{Clients: l.Clients, Alpha: l.Alpha, Accounts: l.Accounts, Elapsed: time.Since(start)}
	total := newLatency()
	for _, c := range clients {
		total.Merge(c.latency)
		r.Counts.add(c.counts)
	}
	r.summarise(total)
	return r, context.Cause(ctx)
}

// send sends one command until its outcome is known, and records that in the books.
func (c *client) send(ctx context.Context, id string, account int, kind service.Type, amount int64) error {
	cmd := service.Command{
		Service: c.load.Service, Key: Account(account), Type: kind,
		ID: service.CommandID(c.load.Run + "-" + id), Data: body(kind, account, amount),
	}
	start := time.Now()
	for try := 1; ; try++ {
		reply, err := c.sender.Send(ctx, cmd)
		switch kind := service.KindOf(err); {
		case err == nil:
			c.latency.RecordValue(time.Since(start).Nanoseconds())
			c.counts.Committed++
			c.counts.Events += uint64(reply.Events)
			c.books.committed(account, cmd.Type, amount, &reply)
			return nil
		case kind == service.KindRejected:
			c.latency.RecordValue(time.Since(start).Nanoseconds())
			c.counts.Rejected++
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case again(kind) && try < 100:
			c.counts.Again++
			if err := pause(ctx, err); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s %s, id %s: %w", cmd.Type, cmd.Key, cmd.ID, err)
		}
	}
}

// again reports whether the same command should be sent once more.
func again(k service.Kind) bool {
	return k == service.KindOverloaded || k == service.KindUnavailable || k == service.KindUnknown
}

// pause waits as long as the refusal asked for, but at least 5 ms and at most 1 s.
func pause(ctx context.Context, err error) error {
	wait := 5 * time.Millisecond
	var e *service.Error
	if errors.As(err, &e) {
		wait = min(max(wait, e.RetryAfter), time.Second)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// body returns the JSON body of a command of the bank.
func body(kind service.Type, account int, amount int64) []byte {
	if kind == "open" {
		return []byte(`{"owner":"Owner ` + strconv.Itoa(account) + `"}`)
	}
	return append(strconv.AppendInt([]byte(`{"amount":`), amount, 10), '}')
}

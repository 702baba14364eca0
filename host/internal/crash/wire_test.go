package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/client"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// deploy deploys a module as the bank, and waits until it runs.
func deploy(t *testing.T, c *child, module []byte) {
	t.Helper()
	if err := tryDeploy(t.Context(), c, module); err != nil {
		t.Fatalf("deploying the bank: %v\n%s", err, c.Log)
	}
}

func tryDeploy(ctx context.Context, c *child, module []byte) error {
	cl, err := c.Client()
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = cl.Deploy(ctx, service.Deployment{Service: "bank", Module: module,
		// So few that most commands have to hydrate an account, many from a snapshot.
		Limits: service.Limits{ResidentEntities: 4}, Settings: service.Settings{SnapshotEvery: 5}})
	return err
}

// connection is one way to send commands.
type connection interface {
	Send(ctx context.Context, c service.Command) (service.Reply, error)
}

// dial connects a client over HTTP, or over a WebSocket of its own.
func dial(ctx context.Context, c *child, http bool) (conn connection, hangUp func(), err error) {
	cl, err := c.Client()
	if err != nil {
		return nil, nil, err
	}
	if http {
		return cl, cl.Close, nil
	}
	s, err := cl.Stream(ctx)
	if err != nil {
		cl.Close()
		return nil, nil, err
	}
	return s, func() { _ = s.Close(); cl.Close() }, nil
}

func factOf(e *client.Event) fact {
	return fact{e.Position, e.Version, e.Key, string(e.Type), e.CommandID, string(e.Data)}
}

// readLog reads all events of the bank, page by page.
func readLog(ctx context.Context, c *child) ([]fact, error) {
	cl, err := c.Client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var log []fact
	for s := (service.Selection{Service: "bank"}); ; {
		page, err := cl.Events(ctx, s, 0)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Events {
			log = append(log, factOf(&e))
		}
		if !page.More {
			return log, nil
		}
		s.From = service.AfterCursor(page.Next)
	}
}

// reader is a subscriber that outlives the host: it keeps what it has seen, and resumes from its
// last cursor.
type reader struct {
	name   string
	socket bool // over WebSocket; otherwise by server-sent events
	seen   []fact
	cursor string
}

// follow reads until the connection ends.
func (r *reader) follow(ctx context.Context, c *child) {
	_ = r.read(ctx, c, func() bool { return false })
}

// errSeen ends reading when the reader has seen everything.
var errSeen = errors.New("seen everything")

// catchUp reads up to position head.
func (r *reader) catchUp(ctx context.Context, c *child, head service.Position) error {
	done := func() bool { return len(r.seen) > 0 && r.seen[len(r.seen)-1].position >= head }
	if head == 0 || done() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := r.read(ctx, c, done); !errors.Is(err, errSeen) {
		return fmt.Errorf("resumed from its cursor, it got to %d of %d events and ended with %w",
			len(r.seen), head, err)
	}
	return nil
}

func (r *reader) read(ctx context.Context, c *child, done func() bool) error {
	cl, err := c.Client()
	if err != nil {
		return err
	}
	defer cl.Close()
	each := func(e client.Event) error {
		r.seen, r.cursor = append(r.seen, factOf(&e)), e.ID
		if done() {
			return errSeen
		}
		return nil
	}
	s := service.Selection{Service: "bank", From: service.AfterCursor(r.cursor)}
	if !r.socket {
		return cl.Follow(ctx, s, each)
	}
	stream, err := cl.Stream(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	sub, err := stream.Subscribe(ctx, s, 100)
	if err != nil {
		return err
	}
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

// balances queries the balance of each account and compares it with the sum of its events in the
// log.
func balances(ctx context.Context, c *child, log []fact) error {
	cl, err := c.Client()
	if err != nil {
		return err
	}
	defer cl.Close()
	want := map[service.Key]int64{}
	versions := map[service.Key]service.Version{}
	for _, f := range log {
		var body struct{ Amount int64 }
		if err := json.Unmarshal([]byte(f.data), &body); err != nil {
			return fmt.Errorf("event at %d: %w", f.position, err)
		}
		switch f.kind {
		case "withdrawn":
			want[f.key] -= body.Amount
		default:
			want[f.key] += body.Amount
		}
		versions[f.key] = f.version
	}
	for key, sum := range want {
		r, err := cl.Query(ctx, service.Query{Service: "bank", Key: key, Type: "balance"})
		if err != nil {
			return fmt.Errorf("balance of %s: %w", key, err)
		}
		var got struct{ Balance int64 }
		if err := json.Unmarshal(r.Data, &got); err != nil {
			return fmt.Errorf("balance of %s: %.100q: %w", key, r.Data, err)
		}
		if got.Balance != sum || r.Version != versions[key] {
			return fmt.Errorf("%s has a balance of %d at version %d, its events add up to %d at version %d", key,
				got.Balance, r.Version, sum, versions[key])
		}
	}
	return nil
}

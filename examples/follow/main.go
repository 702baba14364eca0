// Command follow keeps a read model of a bank up to date from outside: it follows the bank's events over HTTP and
// prints the richest accounts whenever they change. It uses only the standard library, so it also shows what a
// client in another language must do.
//
//	go run ./examples/follow [-host http://127.0.0.1:8080]
//
// It needs to remember only the last id that the host sent. When the connection or the host goes away, it asks for
// the events after that id, and misses nothing. If a stream has a filter, the host also sends ids without an event,
// so that the client's id advances even where no event passes.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

func main() {
	host := flag.String("host", "http://127.0.0.1:8080", "where the bank runs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	model := richest{balances: map[string]int64{}}
	err := follow(ctx, *host+"/v1/services/bank/events", func(e event) error {
		if model.apply(e) {
			fmt.Println(model.String())
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "follow:", err)
		os.Exit(1)
	}
}

// event is the part of a CloudEvent that this program needs.
type event struct {
	Type    string
	Subject string // the account
	Data    struct{ Amount int64 }
}

// richest is the read model. It is derived from events, and rebuilt at each start.
type richest struct {
	balances map[string]int64
	top      []string
}

// apply adds an event, and reports whether the order of the first three changed.
func (r *richest) apply(e event) bool {
	switch e.Type {
	case "deposited":
		r.balances[e.Subject] += e.Data.Amount
	case "withdrawn":
		r.balances[e.Subject] -= e.Data.Amount
	default:
		return false
	}
	var names []string
	for name := range r.balances {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(r.balances[b], r.balances[a]), cmp.Compare(a, b))
	})
	names = names[:min(3, len(names))]
	changed := !slices.Equal(names, r.top)
	r.top = names
	return changed
}

func (r *richest) String() string {
	var parts []string
	for _, name := range r.top {
		parts = append(parts, fmt.Sprintf("%s %d", name, r.balances[name]))
	}
	return strings.Join(parts, ", ")
}

// follow calls each with every event from the first on, until ctx ends or each returns an error. When a connection
// ends, it connects again and continues after the last event.
func follow(ctx context.Context, url string, each func(event) error) error {
	cursor := ""
	for {
		err := stream(ctx, url, &cursor, each)
		if ctx.Err() != nil || err != errEnded {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// errEnded says that a connection ended, for any reason.
var errEnded = fmt.Errorf("the stream ended")

// stream reads one connection of server-sent events.
func stream(ctx context.Context, url string, cursor *string, each func(event) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if *cursor != "" {
		req.Header.Set("Last-Event-ID", *cursor)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return errEnded // the host is not there now
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 && resp.StatusCode < 500 {
		problem, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("%s: %s", resp.Status, problem)
	}
	lines := bufio.NewReader(resp.Body)
	id := ""      // of the current message
	last := false // the message says why the stream ends
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return errEnded
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" && id != "" { // the end of a message
			*cursor, id = id, ""
		}
		if text, ok := strings.CutPrefix(line, "id:"); ok {
			id = strings.TrimSpace(text)
		}
		last = last || line == "event: problem"
		data, ok := strings.CutPrefix(line, "data:")
		if !ok {
			continue
		}
		if last {
			return fmt.Errorf("the stream ended: %s", data)
		}
		var e event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("an event that is not JSON: %w", err)
		}
		if e.Type == "" {
			continue
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

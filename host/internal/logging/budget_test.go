package logging

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Lines of a service beyond its rate are dropped, counted and reported. Other services, and the
// host, are not affected.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out reader
		b := NewBudget(slog.NewTextHandler(&out, nil), BudgetOptions{Rate: 1000, Burst: 20_000})
		log := b.Logger()
		text := strings.Repeat("x", 900)
		for range 100 {
			log.Info(text, "service", "loud")
		}
		passed := strings.Count(out.String(), text)
		if passed < 15 || passed > 20 {
			t.Errorf("%d lines of about a thousand bytes passed, of a burst of 20,000", passed)
		}
		d := b.Dropped("loud")
		if int(d.Lines) != 100-passed || d.Bytes < 900*d.Lines {
			t.Errorf("dropped are %+v", d)
		}
		u := b.Usage()
		if u.Limit != 20_000 || u.Used <= 19_000 || u.Used > u.Limit || u.Dropped != d || len(u.Holders) != 1 ||
			u.Holders[0] != (Holder{"loud", u.Used}) {
			t.Errorf("usage is %+v", u)
		}
		out.take()
		log.With("service", "quiet").Info("hello")
		log.WithGroup("g").Info("the host's own", "service", "loud") // in a group the key does not name a service
		log.Info("the host's own", "text", strings.Repeat(text, 100))
		if n := strings.Count(out.String(), "\n"); n != 3 || b.Dropped("quiet").Lines > 0 {
			t.Errorf("%d of 3 lines of others passed:\n%.1000s", n, &out)
		}
		out.take()
		time.Sleep(1500 * time.Millisecond) // on the synthetic clock
		synctest.Wait()
		if want := fmt.Sprintf("%d lines dropped", d.Lines); strings.Count(out.String(), want) != 1 ||
			!strings.Contains(out.String(), "service=loud") {
			t.Errorf("told is %q, want %s", &out, want)
		}
		out.take()
		log.Info(text, "service", "loud") // one fits again
		log.Info(text, "service", "loud")
		if n := strings.Count(out.String(), text); n != 1 {
			t.Errorf("%d lines passed after 1.5 s at 1,000 bytes a second", n)
		}
		out.take()
		if err := b.Close(t.Context()); err != nil { // the rest is reported now
			t.Error(err)
		}
		if !strings.Contains(out.String(), "1 lines dropped") {
			t.Errorf("told at the end is %q", &out)
		}
		log.Info("hello", "request", "r1")
		time.Sleep(10 * time.Second)
		log.Info("hello", "service", "loud")
		u = b.Usage()
		if u.Limit != 60_000 || u.Used < 9_000 || u.Used > 10_500 || u.Dropped.Lines != d.Lines+1 ||
			len(u.Holders) != 1 || u.Holders[0].Name != "loud" {
			t.Errorf("usage ten seconds later is %+v", u)
		}
	})
}

// In the long run a service logs as many bytes as its rate allows, whatever text its lines hold, in
// both formats.
func TestRateOfTheLog(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "plain": strings.Repeat("x", 300), "quoted": strings.Repeat(`"`, 300),
		"lines": strings.Repeat("\n", 300), "backslashes": strings.Repeat(`\`, 300),
	} {
		for _, form := range []string{"text", "JSON"} {
			synctest.Test(t, func(t *testing.T) {
				var out reader
				var h slog.Handler = slog.NewTextHandler(&out, nil)
				if form == "JSON" {
					h = slog.NewJSONHandler(&out, nil)
				}
				b := NewBudget(h, BudgetOptions{Rate: 64 << 10})
				log := b.Logger().With("service", "loud", "shard", 1)
				const seconds = 20
				for range seconds * 10 {
					for range 100 {
						log.Warn(text, "error", fmt.Errorf("it failed: %s", text))
					}
					time.Sleep(100 * time.Millisecond) // on the synthetic clock
				}
				if err := b.Close(t.Context()); err != nil {
					t.Error(err)
				}
				if limit := seconds*64<<10 + 256<<10; len(out.String()) > limit*5/4 ||
					text != "" && len(out.String()) < limit/2 {
					t.Errorf("%s, as %s: %d bytes in %d s", name, form, len(out.String()), seconds)
				}
			})
		}
	}
}

// Lines about requests without a service share one account, and so do services beyond the maximum.
func TestAccountsAreBounded(t *testing.T) {
	var out reader
	b := NewBudget(slog.NewTextHandler(&out, nil), BudgetOptions{Rate: 1, Burst: 16 << 10})
	defer func() { _ = b.Close(context.Background()) }()
	log := b.Logger()
	for i := range 1000 {
		log.Info("request failed", "request", i, "err", "unknown")
	}
	if n := strings.Count(out.String(), "\n"); n < 50 || n > 200 {
		t.Errorf("%d lines about requests passed", n)
	}
	for i := range maxAccounts + 1000 {
		log.Info("hello", "service", fmt.Sprint("s", i))
	}
	if n := len(b.accounts); n != maxAccounts {
		t.Errorf("there are %d accounts", n)
	}
	if got := strings.Count(out.String(), "hello"); got < maxAccounts-1 || got > maxAccounts+10 {
		t.Errorf("%d services logged something", got)
	}
}

// A negative rate is unlimited.
func TestNoBudget(t *testing.T) {
	var out reader
	b := NewBudget(slog.NewTextHandler(&out, nil), BudgetOptions{Rate: -1})
	defer func() { _ = b.Close(context.Background()) }()
	for range 1000 {
		b.Logger().Info(strings.Repeat("x", 1000), "service", "loud")
	}
	if n := strings.Count(out.String(), "\n"); n != 1000 || b.Dropped("loud") != (Dropped{}) {
		t.Errorf("%d lines passed, %+v dropped", n, b.Dropped("loud"))
	}
}

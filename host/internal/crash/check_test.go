package crash

import (
	"errors"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// The ledger's check is only worth something if it finds each kind of violation.
func TestLedgerFindsEachViolation(t *testing.T) {
	rejected := service.Errorf(service.KindRejected, "no")
	build := func() (*ledger, []fact) {
		l := newLedger()
		for i, id := range []service.CommandID{"a", "b", "c", "d"} {
			r := l.sent(service.Command{ID: id, Key: "k"})
			var err error
			switch id {
			case "c":
				err = rejected
			case "d":
				err = errors.New("connection reset")
			}
			n := service.Version(i + 1)
			if err := l.answered(r, service.Reply{Version: n, Position: service.Position(n)}, err); err != nil {
				t.Fatal(err)
			}
		}
		return l, []fact{{position: 1, version: 1, key: "k", id: "a"}, {position: 2, version: 2, key: "k", id: "b"}}
	}
	if l, log := build(); len(l.check(log, false)) != 0 {
		t.Errorf("an honest log is accused: %v", l.check(log, false))
	}
	if l, log := build(); len(l.check(append(log, fact{position: 3, version: 3, key: "k", id: "d"}), false)) != 0 {
		t.Error("a command without an answer may be in the log")
	}
	for want, spoil := range map[string]func([]fact) []fact{
		"lost":      func(f []fact) []fact { return f[:1] },
		"different": func(f []fact) []fact { f[1].key, f[1].version = "other", 1; return f },
		"twice":     func(f []fact) []fact { return append(f, fact{position: 3, version: 3, key: "k", id: "a"}) },
		"refused":   func(f []fact) []fact { return append(f, fact{position: 3, version: 3, key: "k", id: "c"}) },
		"strange":   func(f []fact) []fact { return append(f, fact{position: 3, version: 3, key: "k", id: "x"}) },
		"positions": func(f []fact) []fact { return append(f, fact{position: 4, version: 3, key: "k", id: "d"}) },
		"versions":  func(f []fact) []fact { return append(f, fact{position: 3, version: 4, key: "k", id: "d"}) },
	} {
		l, log := build()
		found := l.check(spoil(log), false)
		if !strings.Contains(strings.Join(found, "\n"), want+": ") {
			t.Errorf("%s is not found; found %v", want, found)
		}
	}
	if l, log := build(); !strings.HasPrefix(strings.Join(l.check(log, true), ""), "open: ") {
		t.Error("a command that stays open after it was sent again is not found")
	}
}

func TestLedgerHoldsAnswersTogether(t *testing.T) {
	l := newLedger()
	r := l.sent(service.Command{ID: "a", Key: "k"})
	unavailable := service.Errorf(service.KindUnavailable, "down")
	steps := []struct {
		reply service.Reply
		err   error
		told  told
		bad   bool
	}{
		{err: unavailable, told: toldNotTaken},
		{err: errors.New("reset"), told: toldNothing},
		{err: unavailable, told: toldNothing},
		{reply: service.Reply{Version: 3, Position: 9}, told: toldYes},
		{reply: service.Reply{Version: 3, Position: 9, Repeated: true}, told: toldYes},
		{reply: service.Reply{Version: 4, Position: 9}, told: toldYes, bad: true},
		{err: service.Errorf(service.KindRejected, "no"), told: toldYes, bad: true},
	}
	for i, s := range steps {
		if err := l.answered(r, s.reply, s.err); (err != nil) != s.bad || r.told != s.told {
			t.Fatalf("step %d: told %v, error %v", i, r.told, err)
		}
	}
}

package host_test

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/hosttest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal/badgerlog"
)

// The memory that the stores of the journal may take is an account of the budget while the journal is open. A budget
// that is too small for it is refused, and the error says what to change, and by how much.
func TestTheMemoryOfTheJournal(t *testing.T) {
	t.Parallel()
	const cache = 16 << 20
	h := hosttest.New(t, func(o *host.Options) { o.IndexCacheBytes = cache })
	need := badgerlog.MemoryOf(host.JournalDir(h.Dir()), badgerlog.Options{}) + cache
	for range 2 {
		i := slices.IndexFunc(h.Resources(), func(u service.ResourceUsage) bool {
			return u.Resource == budget.JournalMemoryBytes.String()
		})
		if i < 0 {
			t.Fatal("there is no line for the memory of the journal")
		}
		u := h.Resources()[i]
		if u.Used != need || u.Limit != h.Budget().JournalMemoryBytes || u.Limit < 512<<20 || len(u.Holders) != 1 ||
			u.Holders[0] != (service.ResourceHolder{Name: "journal", Used: need}) {
			t.Errorf("the journal may take %d bytes: %+v", need, u)
		}
		h.Restart() // which checks that everything was given back
	}
	h.Stop()
	for _, c := range []struct {
		limit int64
		want  []string
		never string
	}{
		{need - 1, []string{"raise Budget.JournalMemoryBytes (--max-journal-memory) by 1MiB",
			"lower IndexCacheBytes (--journal-cache) to 15MiB"}, "lost"},
		{need - 8<<20, []string{"(--max-journal-memory) by 8MiB", "(--journal-cache) to 8MiB"}, "lost"},
		{need - 8<<20 - 1, []string{"(--max-journal-memory) by 9MiB"}, "journal-cache"},
		{1, []string{"the journal may have 0MiB of memory and needs "}, "journal-cache"},
	} {
		refused, err := host.Open(t.Context(), host.Options{Dir: h.Dir(), Logger: slog.New(slog.DiscardHandler),
			IndexCacheBytes: cache, Budget: service.Budget{JournalMemoryBytes: c.limit}})
		if err == nil {
			_ = refused.Close(t.Context())
			t.Errorf("a host opens with %d bytes for its journal, which needs %d", c.limit, need)
			continue
		}
		var e *service.Error
		if !errors.As(err, &e) || e.Kind != service.KindInvalid || e.Used != need || e.Limit != c.limit ||
			e.Resource != budget.JournalMemoryBytes.String() || strings.Contains(e.Message, c.never) {
			t.Errorf("with %d bytes: %+v", c.limit, err)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("with %d of %d bytes it says %q, not %q", c.limit, need, err, want)
			}
		}
	}
	h.Change(func(o *host.Options) { o.Budget.JournalMemoryBytes = need })
	h.MustDeploy("tally", testguest.Counter("tally"))
	h.MustSend(add("k"))
}

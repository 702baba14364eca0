package service

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// Each kind of the journal has a kind for callers of a host, whatever the journal was used for.
func TestEachKindOfTheJournalIsTranslated(t *testing.T) {
	for k := journal.KindInvalid; k.String() != "internal"; k++ {
		kinds, ok := journalKinds[k]
		if !ok {
			t.Errorf("%s is not translated", k)
		}
		for use, kind := range kinds {
			if kind == KindInternal && !(k == journal.KindInvalid && JournalUse(use) == JournalWrite) {
				t.Errorf("%s is internal for use %d", k, use)
			}
			err := fmt.Errorf("around: %w", &journal.Error{Kind: k, Detail: "batch 7 is torn"})
			from := FromJournal{Use: JournalUse(use), Op: "look", Service: "bank", Otherwise: "otherwise",
				Words: map[journal.ErrorKind]string{journal.KindCorrupt: "damaged (%s)"}}
			got := from.Make(err)
			want := "otherwise"
			if k == journal.KindCorrupt {
				want = "damaged (batch 7 is torn)"
			}
			if got.Kind != kind || got.Message != want || got.Op != "look" || got.Service != "bank" ||
				!errors.Is(got, err) {
				t.Errorf("%s for use %d: %+v", k, use, got)
			}
		}
	}
}

// Errors of the host are returned unchanged, and the end of a context is distinguished from a failure.
func TestErrorsThatAreNoneOfTheJournal(t *testing.T) {
	read, keep := FromJournal{Use: JournalRead}, FromJournal{Use: JournalKeep}
	own := Errorf(KindOverloaded, "too many readers")
	other := errors.New("the disk broke")
	for name, c := range map[string]struct {
		from FromJournal
		err  error
		want error
	}{
		"nothing":              {read, nil, nil},
		"an error of the host": {read, own, own},
		"another, of a copy":   {keep, other, other},
	} {
		if got := c.from.Of(c.err); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	for _, c := range []struct {
		from FromJournal
		err  error
		want Kind
	}{
		{read, other, KindUnavailable},
		{read, context.DeadlineExceeded, KindDeadline},
		{keep, context.Canceled, KindCanceled},
		{read, &journal.Error{Kind: journal.KindCanceled, Err: context.DeadlineExceeded}, KindDeadline},
		{FromJournal{Use: JournalWrite}, &journal.Error{Kind: journal.KindCanceled, Err: context.Canceled},
			KindUnavailable},
		{FromJournal{Use: JournalWrite}, &journal.Error{Kind: journal.KindClosed, Err: context.Canceled},
			KindUnavailable},
	} {
		if got := KindOf(c.from.Of(c.err)); got != c.want {
			t.Errorf("%v is %s for use %d, want %s", c.err, got, c.from.Use, c.want)
		}
	}
}

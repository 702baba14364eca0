package consumer

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errLost = errors.New("the journal failed")

// fakeLog has any number of events. Each of its journals returns some of them and then fails.
type fakeLog struct {
	mu      sync.Mutex // guards all below
	now     *fakeJournal
	refuse  error // the error of Open
	opened  []service.Position
	resumed []bool
	changed chan struct{}
	closing chan struct{}
}

type fakeJournal struct {
	brings int
	failed chan struct{} // closed when it has failed
}

func newLog() *fakeLog { return &fakeLog{changed: make(chan struct{}), closing: make(chan struct{})} }

// open opens a journal, or none.
func (l *fakeLog) open(j *fakeJournal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = j
	close(l.changed)
	l.changed = make(chan struct{})
}

func newJournal(brings int) *fakeJournal {
	return &fakeJournal{brings: brings, failed: make(chan struct{})}
}

func (l *fakeLog) Open(after service.Position, resumed bool) (Cursor, Generation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return nil, nil, l.refuse
	}
	l.opened, l.resumed = append(l.opened, after), append(l.resumed, resumed)
	return &fakeCursor{journal: l.now, at: after}, l.now, nil
}

func (l *fakeLog) Now() (Generation, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		return nil, l.changed
	}
	return l.now, l.changed
}

func (l *fakeLog) Closing() <-chan struct{} { return l.closing }

type fakeCursor struct {
	journal *fakeJournal
	at      service.Position
}

func (c *fakeCursor) Next(ctx context.Context, limit int) ([]*service.Event, error) {
	if events, _, _ := c.Poll(ctx, limit); len(events) > 0 {
		return events, nil
	}
	select {
	case <-c.journal.failed:
		return nil, errLost
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *fakeCursor) Poll(_ context.Context, limit int) (events []*service.Event, atHead bool, err error) {
	for ; limit > 0 && c.journal.brings > 0; limit-- {
		c.journal.brings--
		c.at++
		events = append(events, service.NewEvent("bank", journal.Stamp{}, journal.Event{Position: c.at}))
	}
	return events, c.journal.brings == 0, nil
}

func (c *fakeCursor) Position() service.Position { return c.at }
func (c *fakeCursor) Release()                   {}

// When another journal replaces a failed one, a consumer continues after its last event, however long that
// takes. No event comes twice or is left out.
func TestAConsumerGoesOnThroughTheNextJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLog()
		log.open(newJournal(3))
		c, err := New(log, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		for want := service.Position(1); want <= 30; want++ {
			if want%3 == 1 && want > 1 {
				go func() {
					log.mu.Lock()
					failed := log.now
					log.mu.Unlock()
					log.open(nil)
					close(failed.failed)
					time.Sleep(time.Minute)
					log.open(newJournal(3))
				}()
			}
			events, err := c.Next(t.Context(), 1)
			if err != nil || len(events) != 1 || events[0].Position != want || c.Position() != want {
				t.Fatalf("after %d: %d events, %v", want-1, len(events), err)
			}
		}
		if len(log.opened) != 10 {
			t.Errorf("opened after %v", log.opened)
		}
		for i, after := range log.opened {
			if after != service.Position(3*i) || log.resumed[i] != (i > 0) {
				t.Errorf("opened after %v, resumed %v", log.opened, log.resumed)
			}
		}
	})
}

// A consumer ends with the reason when there will be no other journal: this one is still open, the host
// closes, its own context ends, or the next journal cannot be read.
func TestWhyAConsumerEnds(t *testing.T) {
	errRefused, errEnough := errors.New("no such service"), errors.New("enough")
	for name, c := range map[string]struct {
		then func(*fakeLog, context.CancelCauseFunc)
		want []error
	}{
		"no other journal": {func(l *fakeLog, _ context.CancelCauseFunc) { close(l.now.failed) }, []error{errLost}},
		"the host closes": {func(l *fakeLog, _ context.CancelCauseFunc) {
			failed := l.now
			l.open(nil)
			close(failed.failed)
			synctest.Wait()
			close(l.closing)
		}, []error{errLost}},
		"its context ends": {func(l *fakeLog, cancel context.CancelCauseFunc) {
			failed := l.now
			l.open(nil)
			close(failed.failed)
			synctest.Wait()
			cancel(errEnough)
		}, []error{errLost, errEnough}},
		"it is refused": {func(l *fakeLog, _ context.CancelCauseFunc) {
			failed := l.now
			l.mu.Lock()
			l.refuse = errRefused
			l.mu.Unlock()
			l.open(newJournal(0))
			close(failed.failed)
		}, []error{errLost, errRefused}},
	} {
		synctest.Test(t, func(t *testing.T) {
			log := newLog()
			log.open(newJournal(0))
			consumer, err := New(log, 7, true)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			go func() {
				synctest.Wait()
				c.then(log, cancel)
			}()
			events, err := consumer.Next(ctx, 1)
			for _, want := range c.want {
				if len(events) > 0 || !errors.Is(err, want) {
					t.Errorf("%s: %d events, %v; want %v", name, len(events), err, want)
				}
			}
			if consumer.Position() != 7 {
				t.Errorf("%s: it is at %d", name, consumer.Position())
			}
		})
	}
	log := newLog()
	log.refuse = errRefused
	if _, err := New(log, 0, false); err != errRefused {
		t.Errorf("got %v", err)
	}
}

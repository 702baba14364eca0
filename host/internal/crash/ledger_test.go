package crash

import (
	"fmt"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// told is what a client knows about one command.
type told int

const (
	toldNothing  told = iota // sent, without an answer, or with the answer "unknown"
	toldYes                  // committed, with a reply
	toldNo                   // refused: nothing was written
	toldNotTaken             // refused before the handler ran; free to send again
)

func (t told) String() string {
	return [...]string{"nothing", "committed", "rejected", "not taken"}[t]
}

// record is one command, and what its client was told about it.
type record struct {
	command service.Command
	told    told
	reply   service.Reply // if toldYes
	err     error         // the last one
}

// ledger records what all clients were told, over all rounds on one directory.
type ledger struct {
	mu      sync.Mutex // guards all below
	records map[service.CommandID]*record
	order   []*record
}

func newLedger() *ledger { return &ledger{records: map[service.CommandID]*record{}} }

// sent records a command before it is sent, so that a command that is never answered is known, too.
func (l *ledger) sent(c service.Command) *record {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &record{command: c}
	l.records[c.ID] = r
	l.order = append(l.order, r)
	return r
}

// answered records what the client was told. A lost answer may be followed by a known one, but two
// known answers must agree.
func (l *ledger) answered(r *record, reply service.Reply, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch kind := service.KindOf(err); {
	case err == nil && r.told == toldYes:
		if reply.Version != r.reply.Version || reply.Position != r.reply.Position ||
			string(reply.Data) != string(r.reply.Data) {
			return fmt.Errorf("command %s was answered twice and differently: %+v, then %+v",
				r.command.ID, r.reply, reply)
		}
	case err == nil:
		r.told, r.reply, r.err = toldYes, reply, nil
	case r.told == toldYes:
		return fmt.Errorf("command %s was acknowledged with %+v, and sent again it is answered %w", r.command.ID,
			r.reply, err)
	case kind == service.KindRejected:
		r.told, r.err = toldNo, err
	case kind == service.KindOverloaded || kind == service.KindUnavailable || kind == service.KindFull:
		// Only a refusal of the first attempt proves that nothing was written: an earlier attempt
		// without an answer may have been committed.
		if r.told == toldNothing && r.err == nil {
			r.told = toldNotTaken
		}
		r.err = err
	default:
		r.told, r.err = toldNothing, err
	}
	return nil
}

// open returns the commands whose outcome their clients do not know.
func (l *ledger) open() []*record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var open []*record
	for _, r := range l.order {
		if r.told == toldNothing {
			open = append(open, r)
		}
	}
	return open
}

// lastAcknowledged returns the n acknowledged commands that were recorded last, newest first.
func (l *ledger) lastAcknowledged(n int) []*record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last []*record
	for i := len(l.order) - 1; i >= 0 && len(last) < n; i-- {
		if l.order[i].told == toldYes {
			last = append(last, l.order[i])
		}
	}
	return last
}

// count counts the commands by what their clients were told.
func (l *ledger) count() map[told]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := map[told]int{}
	for _, r := range l.order {
		n[r.told]++
	}
	return n
}

// fact is one event, as read from the log or received by a subscriber.
type fact struct {
	position service.Position
	version  service.Version
	key      service.Key
	kind     string
	id       service.CommandID
	data     string
}

// check compares all events of the log, in order, with the ledger. settled means that every open
// command has been sent again since, so none may be open. It returns the violations, a few of each
// kind at most.
func (l *ledger) check(log []fact, settled bool) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := &violations{}
	versions := map[service.Key]service.Version{}
	events := map[service.CommandID][]fact{}
	for i, f := range log {
		if f.position != service.Position(i+1) {
			v.add("positions", "event %d of the log has position %d", i+1, f.position)
		}
		versions[f.key]++
		if f.version != versions[f.key] {
			v.add("versions", "event at position %d has version %d of %s, want %d", f.position, f.version, f.key,
				versions[f.key])
			versions[f.key] = f.version
		}
		if prior := events[f.id]; len(prior) > 0 && prior[len(prior)-1].position+1 != f.position {
			v.add("twice", "command %s has events at %d and, apart from them, at %d", f.id,
				prior[len(prior)-1].position, f.position)
		}
		events[f.id] = append(events[f.id], f)
	}
	for id := range events {
		if l.records[id] == nil {
			v.add("strange", "the log has command %s, which no client sent", id)
		}
	}
	for _, r := range l.order {
		l.checkRecord(v, r, events[r.command.ID], settled)
	}
	return v.list
}

func (l *ledger) checkRecord(v *violations, r *record, events []fact, settled bool) {
	id := r.command.ID
	if len(events) > 1 {
		v.add("twice", "command %s has %d events, each command here causes one", id, len(events))
		return
	}
	switch r.told {
	case toldYes:
		if len(events) == 0 {
			v.add("lost", "command %s was acknowledged at position %d and is not in the log", id, r.reply.Position)
			return
		}
		if e := events[0]; e.position != r.reply.Position || e.version != r.reply.Version || e.key != r.command.Key {
			v.add("different",
				"command %s was acknowledged for %s at position %d, version %d; the log has %s at %d, %d",
				id, r.command.Key, r.reply.Position, r.reply.Version, e.key, e.position, e.version)
		}
	case toldNo, toldNotTaken:
		if len(events) > 0 {
			v.add("refused", "command %s was refused (%v) and is in the log at %d", id, r.err, events[0].position)
		}
	case toldNothing:
		if settled {
			v.add("open", "command %s has been sent again and still has no answer: %v", id, r.err)
		}
	}
}

// violations collects findings, a few of each kind, so that the report of a large failure stays
// readable.
type violations struct {
	list  []string
	sorts map[string]int
}

func (v *violations) add(sort, format string, args ...any) {
	if v.sorts == nil {
		v.sorts = map[string]int{}
	}
	if v.sorts[sort]++; v.sorts[sort] <= 5 {
		v.list = append(v.list, sort+": "+fmt.Sprintf(format, args...))
	}
}

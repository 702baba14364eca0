package engine

import (
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// task is one command or query on its way. It has one owner at a time: the
// sender, the mailbox, the shard, the log; its methods are the log's callbacks
// and end it.
type task struct {
	shard   *shard
	command service.Command // a query fills in what it has
	typ     uint16
	// generated says that the shard has made the command's id.
	generated bool
	fitted    bool        // the data has been held to its schema
	size      int64       // as the mailbox counts it
	timer     *time.Timer // ends the wait for a sandbox; nil if there was none to wait for

	// Exactly one of the three is set, and is called exactly once.
	reply    func(service.Reply, error)      // of a command
	answer   func(service.QueryReply, error) // of a query
	snapshot func(error)                     // of who wants a snapshot

	// What came of it, set by the shard.
	outcome service.Outcome
	commit  *journal.Commit
	version service.Version // of the entity the outcome rests on
	refusal *service.Error  // the host's own, resting on the entity's state
}

// Drop implements service.Dropper: the task was refused, and its data is nobody's,
// however long the task stays in the mailbox.
func (t *task) Drop() { t.command.Data, t.command.Metadata = nil, nil }

// fail ends the task with an error.
func (t *task) fail(err *service.Error) {
	switch {
	case t.reply != nil:
		t.reply(service.Reply{}, err)
	case t.answer != nil:
		t.answer(service.QueryReply{}, err)
	default:
		t.snapshot(err)
	}
}

// appended is told what became of the commit. Published first, then released: a
// client that has its reply finds the events in the stream.
func (t *task) appended(r journal.Receipt, err error) {
	s := t.shard
	defer s.engine.inflight.done()
	if err != nil {
		s.counters.unknown.Add(1)
		s.void.Store(true) // before the client knows: what it sends next must not meet void state
		t.reply(service.Reply{}, s.unknown(t.command.ID, err))
		return
	}
	s.engine.options.Publish.Publish(r, t.commit)
	s.counters.committed.Add(1)
	s.counters.events.Add(uint64(len(t.commit.Events)))
	t.reply(t.outcome.Reply(r))
}

// settled releases what rests on the entity's state: a rejection, a refusal, a
// query's answer.
func (t *task) settled(r journal.Receipt, err error) {
	s := t.shard
	defer s.engine.inflight.done()
	switch {
	case err != nil:
		t.fail(s.unsettled(err))
	case r.Valid() && r.Version() < t.version:
		// What we looked at is ahead of what is on disk although nothing is pending:
		// it was lost, and the shard has not yet heard of it.
		t.fail(s.unsettled(nil))
	case t.answer != nil:
		a, err := t.outcome.QueryReply(r)
		a.Version = t.version // not that of what may have followed
		if service.KindOf(err) == service.KindRejected {
			s.counters.rejected.Add(1)
		}
		t.answer(a, err)
	case t.refusal != nil && r.Valid():
		t.reply(service.Reply{}, t.refusal)
	default:
		s.counters.rejected.Add(1)
		t.reply(service.Reply{}, t.outcome.Rejection(r))
	}
}

// repeated answers a command whose id the log knows.
func (t *task) repeated(first *journal.Committed, r journal.Receipt, err error) {
	s := t.shard
	defer s.engine.inflight.done()
	switch {
	case err != nil:
		s.counters.unknown.Add(1)
		t.fail(s.unknown(t.command.ID, err))
	case first.Command.Fingerprint != t.command.Fingerprint():
		was := &first.Command
		t.fail(s.engine.errorf(service.KindIDReused, "command id %s was used at %s, for the command %s of entity %q, with other content; nothing was written",
			t.command.ID, time.Unix(0, int64(first.Time)).UTC().Format(time.RFC3339Nano), was.Type, was.Key))
	default:
		s.counters.repeated.Add(1)
		t.reply(service.Repeat(&first.Command, r))
	}
}

// look has the log answer t if it knows its id; then t is over for the shard.
func (s *shard) look(ctx context.Context, t *task) (over bool) {
	s.engine.inflight.add()
	found, err := s.engine.options.Log.Answer(ctx, s.name, journal.CommandID(t.command.ID), t.repeated)
	if found && err == nil {
		return true
	}
	s.engine.inflight.done()
	if err != nil {
		t.fail(s.unread(err))
		return true
	}
	return false
}

// settle has the log answer t when the state it rests on is on disk.
func (s *shard) settle(t *task) {
	s.engine.inflight.add()
	s.engine.options.Log.Settle(s.name, string(t.command.Key), t.settled)
}

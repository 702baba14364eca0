package engine

import (
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// task is one command or query in progress. It has one owner at a time: the sender, the mailbox,
// the shard, the log. Its methods appended, settled and repeated are the log's callbacks and end
// it.
type task struct {
	shard   *shard
	command service.Command // of a query, the fields that a query has
	typ     uint16
	// generated is set if the shard made the command's id.
	generated bool
	fitted    bool        // the data has passed the checks of fits
	size      int64       // in bytes, as the mailbox counts it
	timer     *time.Timer // bounds the wait for a sandbox or a hydration; nil if there is no such wait

	// Exactly one of these three is set. It is called exactly once.
	reply    func(service.Reply, error)      // of a command
	answer   func(service.QueryReply, error) // of a query
	snapshot func(error)                     // of a request for a snapshot, or to release an entity
	// release makes the task one that only hydrates the entity. quarantined is set by the shard if the
	// last hydration of that had failed.
	release, quarantined bool

	// The result, set by the shard.
	outcome service.Outcome
	commit  *journal.Commit
	version service.Version // of the entity, on which the outcome depends
	refusal *service.Error  // by the host, because of the entity's version
}

// Drop implements service.Dropper: the task was refused. It may stay in the mailbox for some time,
// but its data is released now.
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

// appended is the log's callback for a commit. It first publishes the commit and then releases the
// reply, so that a client that has its reply finds the events in the stream.
func (t *task) appended(r journal.Receipt, err error) {
	s := t.shard
	defer s.engine.inflight.done()
	if err != nil {
		s.counters.unknown.Add(1)
		s.void.Store(true) // before the client knows: its next command must not meet lost state
		t.reply(service.Reply{}, s.unknown(t.command.ID, err))
		return
	}
	s.engine.options.Publish.Publish(r, t.commit)
	s.counters.committed.Add(1)
	s.counters.events.Add(uint64(len(t.commit.Events)))
	t.reply(t.outcome.Reply(r))
}

// settled is the log's callback for an answer that depends on the entity's state: a rejection, a
// refusal, the answer to a query.
func (t *task) settled(r journal.Receipt, err error) {
	s := t.shard
	defer s.engine.inflight.done()
	switch {
	case err != nil:
		t.fail(s.unsettled(err))
	case r.Valid() && r.Version() < t.version:
		// The state was ahead of the disk although nothing is pending: it was lost, and the
		// shard has not yet learned of it.
		t.fail(s.unsettled(nil))
	case t.answer != nil:
		a, err := t.outcome.QueryReply(r)
		a.Version = t.version // not that of later commits
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

// repeated is the log's callback for a command whose id the log knows.
func (t *task) repeated(first *journal.Committed, r journal.Receipt, err error) {
	s := t.shard
	defer s.engine.inflight.done()
	switch {
	case err != nil:
		s.counters.unknown.Add(1)
		t.fail(s.unknown(t.command.ID, err))
	case first.Command.Fingerprint != t.command.Fingerprint():
		was := &first.Command
		t.fail(s.engine.errorf(service.KindIDReused, "command id %s was used at %s, for the command %s of entity "+
			"%q, with other content; nothing was written",
			t.command.ID, time.Unix(0, int64(first.Time)).UTC().Format(time.RFC3339Nano), was.Type, was.Key))
	default:
		s.counters.repeated.Add(1)
		t.reply(service.Repeat(&first.Command, r))
	}
}

// look asks the log for the answer to t's id. If the log knows the id, it answers t, and over is
// true.
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

// settle makes the log answer t when the state that the answer depends on is on disk.
func (s *shard) settle(t *task) {
	s.engine.inflight.add()
	s.engine.options.Log.Settle(s.name, string(t.command.Key), t.settled)
}

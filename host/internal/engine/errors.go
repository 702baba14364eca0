package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

func (e *Engine) errorf(kind service.Kind, format string, args ...any) *service.Error {
	err := service.Errorf(kind, format, args...)
	err.Service = e.options.Spec.Service
	return err
}

// caused is an error whose cause is for the operator only.
func (e *Engine) caused(err error, kind service.Kind, format string, args ...any) *service.Error {
	own := e.errorf(kind, format, args...)
	own.Err = err
	return own
}

// own makes err an error of this service; what is no [service.Error] is internal.
func (e *Engine) own(err error) *service.Error {
	var own *service.Error
	if !errors.As(err, &own) {
		return e.caused(err, service.KindInternal, "the host failed to carry the request out")
	}
	if own.Service == "" {
		mine := *own // it may be shared
		mine.Service = e.options.Spec.Service
		own = &mine
	}
	return own
}

// damagedWords are of a damaged log, which its operator has to bring in order.
const damagedWords = "the service's log is damaged (%s); nothing was written; other services are not concerned"

// refused is why the log did not take an outcome; nothing of it was written.
func (s *shard) refused(t *task, err error) *service.Error {
	own := s.fromJournal(err, "the journal is not taking commands; nothing was written", map[journal.ErrorKind]string{
		// What the command was decided on has been lost: an outcome before it was not
		// written, of which the shard will hear in a moment. (Or somebody else writes
		// to our log.) Decided again it will be on what is there.
		journal.KindVersion: "the state that the command was decided on was lost; nothing was written",
		journal.KindInvalid: "the journal cannot hold this outcome; nothing was written",
		journal.KindFull:    "the disk of the journal is full; nothing was written; events and queries go on, and commands when there is room",
	})
	if own.Kind == service.KindIDReused {
		own.Message = fmt.Sprintf("command id %s was used for another command", t.command.ID)
	}
	return own
}

// unread is why the log could not be asked.
func (s *shard) unread(err error) *service.Error {
	var own *service.Error
	if errors.As(err, &own) {
		return s.engine.own(err)
	}
	return s.fromJournal(err, "the journal cannot be read; nothing was written", nil)
}

// fromJournal is an error of the log's, with when to try again.
func (s *shard) fromJournal(err error, otherwise string, words map[journal.ErrorKind]string) *service.Error {
	from := service.FromJournal{Use: service.JournalWrite, Service: s.engine.options.Spec.Service, Otherwise: otherwise,
		Words: map[journal.ErrorKind]string{journal.KindCorrupt: damagedWords}}
	maps.Copy(from.Words, words)
	own := from.Make(err)
	switch own.Kind {
	case service.KindUnavailable:
		if s.ctx.Err() != nil {
			own.Err = errors.Join(context.Cause(s.ctx), err)
		}
		own.RetryAfter = minRetry
	case service.KindFull:
		own.RetryAfter = fullRetry
	}
	return own
}

// historyDeleted is the code of an entity that has lost events to a retention, and
// whose snapshot the module cannot use.
const historyDeleted = "history_deleted"

// unknown is the answer to a command whose outcome the log may have kept or not.
func (s *shard) unknown(id service.CommandID, err error) *service.Error {
	return s.engine.caused(err, service.KindUnknown,
		"the journal failed while it wrote the outcome, which may be there or not; send the command again with the same id, %s, to learn which", id)
}

// unsettled is the answer when the state it would rest on did not get to the
// disk.
func (s *shard) unsettled(err error) *service.Error {
	return s.fromJournal(err, "the state that the answer rests on could not be written; nothing was written for this request", nil)
}

// unavailable is a passing failure of something below the service.
func (s *shard) unavailable(err error, message string) *service.Error {
	if s.ctx.Err() != nil {
		err = errors.Join(context.Cause(s.ctx), err)
	}
	e := s.engine.caused(err, service.KindUnavailable, "%s", message)
	e.RetryAfter = minRetry
	return e
}

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

// caused returns an error whose cause is only shown to the operator.
func (e *Engine) caused(err error, kind service.Kind, format string, args ...any) *service.Error {
	own := e.errorf(kind, format, args...)
	own.Err = err
	return own
}

// own returns err as an error of this service. An err that is not a [service.Error] becomes internal.
func (e *Engine) own(err error) *service.Error {
	var own *service.Error
	if !errors.As(err, &own) {
		return e.caused(err, service.KindInternal, "the host failed to carry the request out")
	}
	if own.Service == "" {
		mine := *own // the original may be shared
		mine.Service = e.options.Spec.Service
		own = &mine
	}
	return own
}

// damagedWords say that a log is damaged, which its operator has to repair.
const damagedWords = "the service's log is damaged (%s); nothing was written; other services are not affected"

// refused says why the log did not accept an outcome; nothing of it was written.
func (s *shard) refused(t *task, err error) *service.Error {
	own := s.fromJournal(err, "the journal is not taking commands; nothing was written", map[journal.ErrorKind]string{
		// The state on which the command was decided is lost: an earlier outcome was not
		// written, and the shard learns of it in a moment. (Or another process writes to our
		// log.) A second attempt is decided on the state that is on disk.
		journal.KindVersion: "the state that the command was decided on was lost; nothing was written",
		journal.KindInvalid: "the journal cannot hold this outcome; nothing was written",
		journal.KindFull: "the disk of the journal is full; nothing was written; events and queries go on, and " +
			"commands when there is room",
	})
	if own.Kind == service.KindIDReused {
		own.Message = fmt.Sprintf("command id %s was used for another command", t.command.ID)
	}
	return own
}

// unread says why the log could not be read.
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

// historyDeleted is the code of an entity whose first events were deleted by a retention, and whose
// snapshot the module cannot use.
const historyDeleted = "history_deleted"

// unknown is the answer to a command whose outcome may or may not be in the log.
func (s *shard) unknown(id service.CommandID, err error) *service.Error {
	return s.engine.caused(err, service.KindUnknown,
		"the journal failed while it wrote the outcome, which may be there or not; send the command again with "+
			"the same id, %s, to learn which", id)
}

// unsettled is the answer to a request if the state that the answer depends on was not written.
func (s *shard) unsettled(err error) *service.Error {
	return s.fromJournal(err, "the state that the answer rests on could not be written; nothing was written for this "+
		"request", nil)
}

// unavailable is a temporary failure of a part below the service.
func (s *shard) unavailable(err error, message string) *service.Error {
	if s.ctx.Err() != nil {
		err = errors.Join(context.Cause(s.ctx), err)
	}
	e := s.engine.caused(err, service.KindUnavailable, "%s", message)
	e.RetryAfter = minRetry
	return e
}

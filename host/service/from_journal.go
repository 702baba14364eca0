package service

import (
	"context"
	"errors"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// JournalUse is the purpose for which the journal was used when it failed. An error of the journal means one
// thing to a reader and another to a writer.
type JournalUse uint8

// The uses of a journal.
const (
	JournalRead  JournalUse = iota // events are read, from places that readers name
	JournalWrite                   // a command is decided on the content of the log, and its outcome appended
	JournalKeep                    // logs are copied, measured, or truncated at their head
	JournalOpen
	journalUses = iota
)

// journalKinds translates the kinds of the journal's errors for callers of a host. It is the only such
// translation.
var journalKinds = map[journal.ErrorKind][journalUses]Kind{
	//                        read             write            keep             open
	journal.KindInternal:    {KindUnavailable, KindUnavailable, KindInternal, KindUnavailable},
	journal.KindInvalid:     {KindBadCursor, KindInternal, KindConflicting, KindUnavailable},
	journal.KindVersion:     {KindBadCursor, KindUnavailable, KindConflicting, KindUnavailable},
	journal.KindDuplicateID: {KindUnavailable, KindIDReused, KindConflicting, KindUnavailable},
	journal.KindClosed:      {KindUnavailable, KindUnavailable, KindUnavailable, KindUnavailable},
	journal.KindFailed:      {KindUnavailable, KindUnavailable, KindUnavailable, KindUnavailable},
	journal.KindFull:        {KindUnavailable, KindFull, KindFull, KindFull},
	journal.KindLocked:      {KindUnavailable, KindUnavailable, KindUnavailable, KindUnavailable},
	journal.KindCorrupt:     {KindDamaged, KindDamaged, KindDamaged, KindDamaged},
	journal.KindCanceled:    {KindCanceled, KindUnavailable, KindCanceled, KindCanceled},
	journal.KindTrimmed:     {KindBadCursor, KindUnavailable, KindConflicting, KindUnavailable},
}

// FromJournal turns errors of the journal into errors of the host, with the messages of one operation.
type FromJournal struct {
	Use     JournalUse
	Op      string // as in [Error]
	Service Name   // as in [Error]
	// Words has messages by the kind of the journal's error. In each, %s is the journal's own detail, which
	// is safe to show to clients.
	Words map[journal.ErrorKind]string
	// Otherwise is the message if Words has none.
	Otherwise string
}

// Of is err as callers of a host see it. nil, and errors with an [Error] in their tree, are returned
// unchanged. With JournalKeep the same applies to errors that are not the journal's.
func (f FromJournal) Of(err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	if ended := KindOf(err); f.Use == JournalKeep && journal.KindOf(err) == journal.KindInternal &&
		ended == KindInternal {
		return err
	}
	return f.Make(err)
}

// Make makes a new error from err, which must not be nil.
func (f FromJournal) Make(err error) *Error {
	kind := journal.KindOf(err)
	own := &Error{Op: f.Op, Service: f.Service, Kind: journalKinds[kind][f.Use], Message: f.Otherwise, Err: err}
	ended := own.Kind == KindCanceled || kind == journal.KindInternal && f.Use != JournalWrite
	switch {
	case ended && errors.Is(err, context.DeadlineExceeded):
		own.Kind = KindDeadline
	case ended && errors.Is(err, context.Canceled):
		own.Kind = KindCanceled
	}
	if words, ok := f.Words[kind]; ok {
		own.Message = strings.ReplaceAll(words, "%s", journal.DetailOf(err))
	}
	return own
}

package service

import (
	"context"
	"errors"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// JournalUse is what the journal was asked for when it failed. An error of the journal means
// something else to somebody who reads than to somebody who writes.
type JournalUse uint8

// The uses of a journal.
const (
	JournalRead  JournalUse = iota // events are read, from places that readers name
	JournalWrite                   // a command is decided on what is in the log, and its outcome appended
	JournalKeep                    // logs are copied, measured, or truncated at their head
	JournalOpen
	journalUses = iota
)

// journalKinds are the kinds that errors of the journal have for callers of a host. This is the only
// place where one becomes the other.
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

// FromJournal makes errors of the journal errors of the host, in the words of one operation.
type FromJournal struct {
	Use     JournalUse
	Op      string // as in [Error]
	Service Name   // as in [Error]
	// Words are messages by what went wrong in the journal. In each, %s is the journal's own
	// detail, which is safe to show to clients.
	Words map[journal.ErrorKind]string
	// Otherwise is the message if Words has none.
	Otherwise string
}

// Of is err as callers of a host see it. What has an [Error] in its tree is returned as it is, and
// so is nil. With JournalKeep that holds for errors that are none of the journal's, too.
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

// Make makes a new error of err, which is not nil.
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

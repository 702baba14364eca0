package commitlog

import (
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/internal/yield"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// Append hands in a commit. An error means that the commit was not accepted and nothing of it will be written:
// KindVersion if the entity is not at the expected version, KindDuplicateID if the id is in use, KindInvalid,
// KindClosed, KindFailed, KindFull while the disk has no more room than the storage keeps in reserve, or KindCanceled
// if ctx ended while Append waited for memory.
//
// After nil, done is called exactly once: with the receipt when the commit is on disk, or with a KindFailed error,
// after which it is unknown whether the commit is on disk. One goroutine makes all calls of done, in the order of each
// log; done must not block and must not call Append or Close.
//
// The journal keeps c and its slices until the commit is in the index, which is after done. The caller must not change
// them after the call.
func (j *Journal) Append(ctx context.Context, c *journal.Commit, done func(journal.Receipt, error)) error {
	if err := validate(c); err != nil {
		return err
	}
	if err := j.space.refuse(c.Log); err != nil {
		return err
	}
	p := &pending{commit: c, done: done, size: format.CommitBytes(c, 0)}
	if p.size <= yield.Step {
		p.encoded = format.AppendCommit(nil, c, 0)
	}
	j.overlay.mu.Lock()
	defer j.overlay.mu.Unlock()
	size := int64(p.size)
	if err := j.overlay.waitForRoom(ctx, c.Log, size); err != nil {
		return err
	}
	// Reserve before releasing the lock; otherwise all waiting callers would see the same free room.
	s := j.overlay.log(c.Log)
	j.overlay.queue.take(&s.queue, 1, size)
	again, err := j.mayEnter(ctx, s, c)
	if err != nil {
		j.overlay.queue.take(&s.queue, -1, -size)
		j.overlay.queue.makeRoom()
		return err
	}
	if again {
		p.markAgain(j.opt.AnswerWindow)
		j.overlay.queue.take(&s.queue, 0, int64(p.size)-size)
		size = int64(p.size)
	}
	j.overlay.hold(s, p)
	j.overlay.queue.push(&s.queue, p)
	s.size.writing += size
	j.overlay.flying++
	j.overlay.signal()
	return nil
}

// markAgain records that the command's id was used before, and that the window of its answer has ended.
func (p *pending) markAgain(window time.Duration) {
	p.again, p.size = window, format.CommitBytes(p.commit, window)
	if p.encoded != nil {
		p.encoded = format.AppendCommit(nil, p.commit, window)
	}
}

// mayEnter returns why a commit is not accepted, or nil; for again see checkIn. The caller holds mu, which may be
// released meanwhile.
func (j *Journal) mayEnter(ctx context.Context, s *logState, c *journal.Commit) (again bool, err error) {
	version, again, err := j.checkIn(ctx, s, c)
	if err != nil {
		return false, err
	}
	if version != c.Expected {
		return false, journal.Errorf(journal.KindVersion, "append", c.Log, "entity %q is at version %d, not at %d",
			c.Command.Key,
			version, c.Expected)
	}
	return again, j.overlay.refusal(c.Log)
}

func validate(c *journal.Commit) error {
	bad := func(format string, args ...any) error {
		return journal.Errorf(journal.KindInvalid, "append", c.Log, format, args...)
	}
	cmd := &c.Command
	switch {
	case len(c.Log) == 0 || len(c.Log) > journal.MaxLogName:
		return bad("the log's name has %d bytes; it has 1 to %d", len(c.Log), journal.MaxLogName)
	case len(cmd.Key) == 0 || len(cmd.Key) > journal.MaxKey:
		return bad("the key has %d bytes; it has 1 to %d", len(cmd.Key), journal.MaxKey)
	case len(cmd.ID) == 0 || len(cmd.ID) > journal.MaxCommandID:
		return bad("the command id has %d bytes; it has 1 to %d", len(cmd.ID), journal.MaxCommandID)
	case len(cmd.Type) > journal.MaxTypeName:
		return bad("the command's type has %d bytes; it has at most %d", len(cmd.Type), journal.MaxTypeName)
	case len(c.Events) > journal.MaxEvents:
		return bad("the commit has %d events; it has at most %d", len(c.Events), journal.MaxEvents)
	}
	size := len(cmd.Data) + len(cmd.Metadata) + len(cmd.Reply)
	for i := range c.Events {
		e := &c.Events[i]
		if len(e.Type) > journal.MaxTypeName || len(e.ContentType) > journal.MaxTypeName {
			return bad("event %d has a type of more than %d bytes", i, journal.MaxTypeName)
		}
		size += len(e.Data) + len(e.Metadata)
	}
	if size > journal.MaxCommit {
		return bad("the commit has %d bytes; it has at most %d", size, journal.MaxCommit)
	}
	return nil
}

// checkIn finds the version of c's entity and refuses an id that is in use. again says that the id was used and the
// window of its answer has ended. It releases the lock while it reads the index.
func (j *Journal) checkIn(
	ctx context.Context, s *logState, c *journal.Commit,
) (version journal.Version, again bool, err error) {
	cmd := &c.Command
	inUse := func() error {
		return journal.Errorf(journal.KindDuplicateID, "append", c.Log, "command id %q is in use", cmd.ID)
	}
	for {
		if s.ids[cmd.ID] != nil {
			return 0, false, inUse()
		}
		version, known := j.overlay.knownVersion(s, cmd.Key)
		before, absent := s.unused[cmd.ID]
		absent = absent || c.GeneratedID
		if known && absent {
			return version, before == idExpired, nil
		}
		seen := s.indexing
		j.overlay.mu.Unlock()
		var err error
		if !absent {
			_, before, err = j.findAnswer(ctx, c.Log, cmd.ID)
		}
		if err == nil && !known {
			version, err = j.indexedAt(ctx, c.Log, cmd.Key, c.Expected)
		}
		j.overlay.mu.Lock()
		switch {
		case err != nil:
			return 0, false, err
		case before == idUsed:
			return 0, false, inUse()
		case s.indexing != seen:
			continue // something left the overlay meanwhile: look again
		}
		if s.ids[cmd.ID] != nil {
			continue
		}
		if now, ok := j.overlay.knownVersion(s, cmd.Key); ok {
			version = now
		} else {
			j.overlay.versions.put(j.overlay.versions.key(c.Log, cmd.Key), version)
		}
		return version, before == idExpired, nil
	}
}

// idUse is what the index knows of a command id.
type idUse uint8

const (
	idUnused  idUse = iota // never used, or its commit is deleted
	idExpired              // used, but the window of its answer has ended
	idUsed
)

// absent remembers that the index has no answer to id, and whether it once had one. That holds until a commit with the
// id is handed in, so Append need not repeat the look-up of a caller that asked first, as a shard does. The caller
// holds mu.
func (s *logState) absent(id journal.CommandID, before idUse) {
	const most = 4096 // asked for but not appended: mostly refused by their service
	if len(s.unused) >= most {
		clear(s.unused)
	}
	s.unused[id] = before
}

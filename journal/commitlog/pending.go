package commitlog

import (
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/mint"
)

// pending is a commit between Append and the index.
type pending struct {
	commit  *journal.Commit
	again   time.Duration // see format.AppendCommit
	log     *logState
	entity  *entity
	size    int    // of its records, in bytes
	encoded []byte // its records, if they are short; long ones are encoded into their batch
	done    func(journal.Receipt, error)

	// Guarded by overlay.mu until the commit is on disk or void, constant then.
	waiters  []func(*pending, error) // called after done
	durable  bool
	snapshot *held // of the entity as this commit left it

	// The committer's until durable is set, constant then.
	first journal.Position
	time  journal.UnixNano
	place format.Place
	stamp *journal.Stamp // see Receipt.Stamp
}

// proven is what is true once the commit is on disk.
func (p *pending) proven() journal.Proven {
	c := p.commit
	return journal.Proven{
		Log: c.Log, Key: c.Command.Key, ID: c.Command.ID, First: p.first, Events: uint32(len(c.Events)),
		Version: c.Expected + journal.Version(len(c.Events)), Time: p.time, Origin: p.log.origin, Stamp: *p.stamp,
	}
}

func (p *pending) receipt() journal.Receipt { return journal.NewReceipt(minting, p.proven()) }

// minting is the key with which the journal mints its receipts.
var minting = mint.NewKey()

// committed is a durable commit as it is in the log.
func (p *pending) committed() *journal.Committed {
	c := &journal.Committed{Log: p.commit.Log, Command: p.commit.Command, First: p.first, Time: p.time,
		Version: p.commit.Expected + journal.Version(len(p.commit.Events)), Stamp: *p.stamp}
	for i := range p.commit.Events {
		c.Events = append(c.Events, p.event(i))
	}
	return c
}

func (p *pending) event(i int) journal.Event {
	e := &p.commit.Events[i]
	ev := journal.Event{
		Log: p.commit.Log, Key: p.commit.Command.Key, Version: p.commit.Expected + journal.Version(i) + 1,
		Type: e.Type, ContentType: format.ContentType(e.ContentType), Data: e.Data, Metadata: e.Metadata,
		CommandID: p.commit.Command.ID, CommandType: p.commit.Command.Type, CommandTime: p.commit.Command.Time,
		CommandFuel: p.commit.Command.Fuel,
	}
	if p.durable {
		ev.Position, ev.Time, ev.Stamp = p.first+journal.Position(i), p.time, *p.stamp
	}
	return ev
}

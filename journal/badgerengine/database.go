package badgerengine

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// database is a Badger database whose versions are given by us ("managed"). Badger's
// own way has each reader wait for the write that is under way, so for a sync of the
// disk. Here a reader sees what is in the tables in memory, which may be a part of a
// write: the journal knows what is durable, and believes nothing beyond.
//
// What writes is one goroutine, and one that removes what a retention deletes.
type database struct {
	*badger.DB
	readers readers
	lineage uint64 // of the log's entries; see lineage.go

	faulted atomic.Bool // a value could not be read, and Badger still holds its file for reading

	writing sync.Mutex // held during a write; guards the fields below
	version uint64     // of the last write
	written uint64     // of the last write of values
	values  *values    // nil if values stand in tables and Badger syncs
	marked  uint32     // the number of a file of values that SYNCED has
	failed  error      // of a write whose outcome is unknown; there is none behind it
	settled bool       // recover has found everything
}

func openDatabase(o badger.Options) (*database, error) {
	db, err := badger.OpenManaged(o)
	if err != nil {
		return nil, err
	}
	d := &database{DB: db, version: db.MaxVersion()}
	if valuesApart(o) {
		if d.values, err = openValues(o.Dir); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	} else {
		d.SetDiscardTs(d.version)
	}
	return d, nil
}

var errFaulted = errors.New("a value could not be read; Badger would wait for its file for ever")

// Close closes the database when all is written. The next opening need not look for pointers.
func (d *database) Close() error {
	if d.faulted.Load() {
		return errFaulted
	}
	err := d.DB.Close()
	d.writing.Lock()
	defer d.writing.Unlock()
	if d.values == nil {
		return err
	}
	if err == nil && d.failed == nil && d.settled {
		err = notePointers(d.values.dir, d.values.id+1, d.written)
	}
	return errors.Join(err, d.values.close())
}

// begin starts a transaction that writes. It does not read.
func (d *database) begin() *badger.Txn { return d.NewTransactionAt(math.MaxUint64, true) }

// commit writes a transaction, of values or of deletions. Values in it survive a loss of power when it returns; so does all else if pointers
// are synced, too, or values stand in tables.
func (d *database) commit(txn *badger.Txn, values, pointers bool) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if d.failed == nil && d.faulted.Load() {
		d.failed = errFaulted
	}
	if d.failed != nil {
		return d.failed
	}
	d.version++
	err := txn.CommitAt(d.version, nil)
	if err == nil && values { // that stand apart
		d.written = d.version
	}
	if d.values == nil {
		d.SetDiscardTs(d.version) // readers want the newest only, so nothing older need be kept
	} else if err == nil {
		err = d.sync(pointers) // which sees to it, too
	}
	d.failed = err
	return err
}

// sync syncs what was written, by who holds writing.
func (d *database) sync(pointers bool) error {
	turned, err := d.values.sync()
	switch {
	case err != nil:
		return err
	case turned && d.settled:
		err = d.note()
	case pointers:
		err = syncPointers(d.values.dir)
	}
	if err != nil {
		err = errors.Join(err, noteUnsynced(d.values.dir))
	}
	return err
}

// write writes entries in one transaction. If they are more than Badger takes the error is
// badger.ErrTxnTooBig, and nothing is written.
func (d *database) write(entries []*badger.Entry) error {
	txn := d.begin()
	defer txn.Discard()
	size, apart := 0, 0
	for _, e := range entries {
		if len(e.Value) >= leastApart {
			apart++
		}
		if size += len(e.Value); d.values != nil && size > d.most() {
			return badger.ErrTxnTooBig
		}
		if err := txn.SetEntry(e); err != nil {
			return err
		}
	}
	if d.values != nil && apart > 0 {
		if err := txn.SetEntry(d.groupEntry(apart)); err != nil {
			return err
		}
	}
	// Short values stand with the pointers.
	return d.commit(txn, apart > 0, apart < len(entries))
}

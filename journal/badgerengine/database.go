package badgerengine

import (
	"math"
	"sync"

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
	writing sync.Mutex // held during a write; guards version
	version uint64     // of the last write
	lineage uint64     // of the log's entries; see lineage.go
}

func openDatabase(o badger.Options) (*database, error) {
	db, err := badger.OpenManaged(o)
	if err != nil {
		return nil, err
	}
	d := &database{DB: db, version: db.MaxVersion()}
	d.SetDiscardTs(d.version)
	return d, nil
}

// begin starts a transaction that writes. It does not read.
func (d *database) begin() *badger.Txn { return d.NewTransactionAt(math.MaxUint64, true) }

func (d *database) commit(txn *badger.Txn) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.version++
	err := txn.CommitAt(d.version, nil)
	d.SetDiscardTs(d.version) // readers want the newest only, so nothing older need be kept
	return err
}

// Update is as Badger's own, which managed databases lack.
func (d *database) Update(write func(*badger.Txn) error) error {
	txn := d.begin()
	defer txn.Discard()
	if err := write(txn); err != nil {
		return err
	}
	return d.commit(txn)
}

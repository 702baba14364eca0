package journal

import "context"

// Storage is where a journal keeps its bytes. One journal uses it at a time. It is a plain value: to change what a
// storage does, copy it and replace a field.
//
// Log, Index and Close are required. The other fields are abilities that not every storage has: each may be nil, and
// says what the journal does without it. Until Close is called, abilities may be called at any time by any goroutine.
type Storage struct {
	Log   LogStore
	Index IndexStore
	// Close releases the storage. The journal calls it once, as its last act; later calls return the same error.
	Close func() error

	// Heads remembers, apart from the log, how far each log has come. Without it the loss of a log's end is noticed
	// only if the index has entries of what was lost.
	Heads HeadStore
	// Quarantined returns the names of damaged files that were set aside, whose content is missing from the log. If
	// there are any, Open reads every log to find out what is missing. Without it such a gap is found when it is read.
	Quarantined func() []string
	// Space returns nil while the disk has more room than the storage keeps in reserve, else a [KindFull] error that
	// says how much room there is and how much there has to be. While it returns an error the journal refuses commits;
	// it takes them again when there is room. It must be cheap, as it may be called fifty times a second. Without it a
	// full disk is met by a write, whose failure ends the journal.
	Space func() error
	// Compact gives the space of deleted data back to the disk, which may take long. The journal calls it at the end
	// of a retention. Without it the journal leaves that to the storage.
	Compact func(context.Context) error
	// Count returns what the storage has counted. Without it [Stats.Storage] is zero.
	Count func() StorageStats
}

// HeadStore remembers how far logs have come, apart from their blocks. Its methods may be called concurrently.
type HeadStore interface {
	// Heads returns for each log the last block that Append is known to have stored. There may be later ones.
	Heads() map[LogName]Head
	// ForgetHeads forgets them: what the logs have now is all there is.
	ForgetHeads() error
}

// Head is the place of the last block of a log.
type Head struct {
	Sequence uint64
	First    Position
}

// KnownHeads are those that the storage remembers.
func (s Storage) KnownHeads() map[LogName]Head {
	if s.Heads == nil {
		return nil
	}
	return s.Heads.Heads()
}

// Block is one batch as the log store keeps it. Sequence counts the batches of a
// log from 1; First never decreases from one to the next.
type Block struct {
	Log      LogName
	First    Position
	Sequence uint64
	Data     []byte
}

// LogStore keeps blocks, ordered by log, first position and sequence.
//
// Methods may be called concurrently, Append by one goroutine at a time.
type LogStore interface {
	// Append stores all blocks or none, and returns nil only once they survive a
	// loss of power. After an error the outcome is unknown until the storage is opened
	// again. It does not keep the blocks' data.
	Append(ctx context.Context, blocks []Block) error
	// Blocks yields the blocks of a log in order, beginning with those that have the
	// greatest First not above from, or with the first one there is. Several blocks have
	// the same First if all but the last are without events. A block is valid during
	// its yield only. An error of yield ends the scan and is returned as it is.
	Blocks(ctx context.Context, log LogName, from Position, yield func(Block) error) error
	// Last returns the last block of a log; ok is false if it has none. The caller owns
	// it. With an error, ok says that at least its place is known.
	Last(ctx context.Context, log LogName) (b Block, ok bool, err error)
	// Trim removes blocks of a log with a sequence below one, oldest first: a bounded
	// number, so that Append is not held up for long, with which it may be called at the
	// same time. When it returns they are gone for good; after a crash some of the oldest
	// may be. more says that there are others to remove. It never removes the last block.
	Trim(ctx context.Context, log LogName, below uint64) (more bool, err error)
	// Logs returns the names of all logs that have a block, in byte order.
	Logs(ctx context.Context) ([]LogName, error)
}

// Pair is an entry of the index.
type Pair struct{ Key, Value []byte }

// IndexStore keeps what is derived from the log. Keys have 1 byte to 1 KiB and do
// not begin with a zero byte.
//
// Methods may be called concurrently, Update by one goroutine at a time.
type IndexStore interface {
	// Update stores all pairs, replacing those of equal keys. After a crash some of
	// the latest updates may be missing; what survives of one update is whole
	// or, if it had to be split, lacks its last pairs.
	Update(ctx context.Context, pairs []Pair) error
	// Delete removes keys; one that is not there is no error. It may be called at the
	// same time as Update. When it returns, the removal survives a loss of power, and so
	// do all updates that came before it.
	Delete(ctx context.Context, keys [][]byte) error
	// DeleteRange removes the entries whose keys are not below from and below to. Like an Update, which it is not
	// called at the same time as, a crash may take it back.
	DeleteRange(ctx context.Context, from, to []byte) error
	// Get returns the value of a key; ok is false if there is none. The caller owns it.
	Get(ctx context.Context, key []byte) (value []byte, ok bool, err error)
	// Has reports whether there is an entry with the key. It does not read the value.
	Has(ctx context.Context, key []byte) (bool, error)
	// Scan yields the entries whose key starts with prefix and is not below from, in
	// byte order. Key and value are valid during their yield only, and nobody may change them. An error of yield
	// ends the scan and is returned as it is.
	Scan(ctx context.Context, prefix, from []byte, yield func(key, value []byte) error) error
	// Last returns the greatest key that starts with prefix; ok is false if there is
	// none. The caller owns it.
	Last(ctx context.Context, prefix []byte) (key []byte, ok bool, err error)
	// Clear removes everything.
	Clear(ctx context.Context) error
	// SetAside empties the store as Clear does, also if its content is damaged, and moves its
	// files to another place if it can, so that the damage can be examined. The files of an earlier call are removed.
	// Nothing else uses the store meanwhile.
	SetAside(ctx context.Context) error
}

package badgerlog

import (
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
)

// MemoryOf returns how many bytes of memory the log in the directory of a journal may take, as Badger's options bound
// it: tables in memory, tables that are being written, and caches. The files that Badger maps are not in it, as the
// system takes their memory back when it needs it.
func MemoryOf(dir string, o Options) int64 {
	l := &Log{dir: dir, options: o}
	left, _ := filepath.Glob(filepath.Join(l.badger(), "*"+memSuffix)) // an error comes again when they are opened
	return memoryOf(l.badgerOptions(), len(left))
}

// memoryOf is for a log of which a crash has left so many tables in memory to be read again.
func memoryOf(o badger.Options, left int) int64 {
	// The arena of a table in memory has room for one more transaction: for entries, and for nodes, of 15 % of its
	// size each.
	table := o.MemTableSize + 2*(15*o.MemTableSize/100)
	// One is written to, one is being flushed, and the others wait for that. Those that are left are read into arenas
	// before a new one is made.
	tables := max(o.NumMemtables+2, left+1)
	// A table that is being written doubles its buffer until all of the table is in it.
	writers := 1 + o.NumCompactors // one is the flush
	return int64(tables)*table + int64(writers)*2*o.MemTableSize + o.BlockCacheSize + o.IndexCacheSize +
		2*maxInline // the buffer of an entry that is written to a file of values
}

package badgerengine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/lsm"
)

// Badger opens its files on goroutines of its own and trusts what it finds: a file
// that was cut short, or whose footer has a flipped bit, is a panic or a SIGBUS
// there, which ends the process, and a table that its MANIFEST does not name is
// deleted. So every file is looked at first, where a panic can be caught.
//
// Of the log, which is the truth, a damaged file is put aside alone, and what the
// other files have goes on being read; the journal is told, and looks for what is missing
// (see journal.Doubter). An index that is damaged is put aside as a whole: it can be made again.
//
// Nothing is deleted: what is put aside has asideSuffix behind its name.

const asideSuffix = ".damaged"

// errDamaged is in errors that say that a database's files are not what was written.
var errDamaged = errors.New("damaged")

func damaged(file, format string, args ...any) error {
	return fmt.Errorf("%s is %w: %s", file, errDamaged, fmt.Sprintf(format, args...))
}

// openLog opens the database of the log. It says what was in its value log before; see values.go.
func openLog(o badger.Options, deep bool) (db *database, m mark, values []valueFile, err error) {
	if !o.ReadOnly {
		if err := errors.Join(clearUnlisted(o.Dir), inspectLog(o, deep)); err != nil {
			return nil, m, nil, err
		}
		if m, values, err = prepareValues(o.Dir); err != nil {
			return nil, m, nil, err
		}
	}
	if db, err = openDatabase(o); err != nil {
		if !ofTheSystem(err) {
			err = damaged(o.Dir, "%v", err)
		}
		return nil, m, nil, err
	}
	return db, m, values, db.setLineage(filepath.Dir(o.Dir))
}

// checkedIndex is up to which size an index is read as a whole whenever it is opened, which takes
// about a tenth of a second then. Damage of a larger one is found when the block is read.
const checkedIndex = 64 << 20

// openIndex opens the index, or an empty one in the place of one that is damaged.
func openIndex(dir string, o lsm.Options, lineage uint64, deep bool) (*lsm.Store, error) {
	if o.ReadOnly {
		return lsm.Open(dir, o)
	}
	err := removeOlderIndex(dir)
	own := false
	if err == nil {
		own, err = markIndex(dir, lineage)
	}
	switch {
	case errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR):
		err = classify("open", damaged(dir, "%v", err))
	case err == nil && !own:
		err = classify("open", damaged(dir, "it is the index of another journal"))
	}
	var index *lsm.Store
	if err == nil {
		index, err = lsm.Open(dir, o)
	}
	if err == nil && (deep || index.Stats().Bytes <= checkedIndex) {
		switch found := index.Check(context.Background()); {
		case journal.KindOf(found) == journal.KindCorrupt:
			err = errors.Join(found, index.Close())
		case found != nil && o.Logger != nil: // what cannot be read now is no damage yet
			o.Logger.Warn("the journal's index could not be checked", "error", found)
		}
	}
	if err == nil || journal.KindOf(err) != journal.KindCorrupt {
		return index, err
	}
	if o.Logger != nil {
		o.Logger.Error("the journal's index is damaged; it is put aside and made again from the log", "error", err)
	}
	if err := putIndexAside(dir); err != nil {
		return nil, err
	}
	if _, err := markIndex(dir, lineage); err != nil {
		return nil, err
	}
	return lsm.Open(dir, o)
}

// removeOlderIndex removes an index that was kept in Badger, as it once was. It is made anew.
func removeOlderIndex(dir string) error {
	older := dir + ".older"
	_, err := os.Stat(filepath.Join(dir, badger.ManifestFilename))
	if err == nil {
		err = os.Rename(dir, older)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(older)) // which may be of a try before
}

// ofTheSystem tells errors that the system gave from those that Badger's own
// checks found. Badger wraps with %+v, so there is text only.
func ofTheSystem(err error) bool {
	text := err.Error()
	if strings.Contains(text, "Cannot acquire directory lock") {
		return true
	}
	for _, e := range []syscall.Errno{syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.EIO, syscall.ENOSPC, syscall.EDQUOT,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EFBIG, syscall.ENOENT} {
		if errors.Is(err, e) || strings.Contains(text, e.Error()) {
			return true
		}
	}
	return false
}

// inspectLog looks at the log's files and puts aside what Badger could not live
// with.
func inspectLog(o badger.Options, deep bool) error {
	dir := o.Dir
	if err := inspectSmall(dir); err != nil {
		return err
	}
	lost, unlisted, err := inspectTables(o, deep)
	if err != nil {
		return err
	}
	for _, id := range unlisted {
		// A crash within a compaction leaves such a table, whose content is elsewhere
		// too. But if it is the MANIFEST that lost its end, it may be the only one.
		if err := keepUnlisted(dir, table.IDToFilename(id)); err != nil {
			return err
		}
	}
	for _, id := range lost {
		file := table.NewFilename(id, dir)
		err := os.Rename(file, file+asideSuffix)
		if errors.Is(err, fs.ErrNotExist) { // the file is missing; leave a sign of it
			err = os.WriteFile(file+asideSuffix, nil, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return strikeFromManifest(dir, lost)
}

// putIndexAside renames the directory of the index, so that a new one is made. An
// older one that was put aside makes room.
func putIndexAside(dir string) error {
	if err := os.RemoveAll(dir + asideSuffix); err != nil {
		return err
	}
	return os.Rename(dir, dir+asideSuffix)
}

// doubts lists what stands aside of the log.
func doubts(dir string) ([]string, error) {
	return filepath.Glob(filepath.Join(dir, "*"+asideSuffix))
}

// unlisted is where tables are kept for one run that no MANIFEST names.
const unlistedDir = "unlisted"

func clearUnlisted(dir string) error { return os.RemoveAll(filepath.Join(dir, unlistedDir)) }

func keepUnlisted(dir, name string) error {
	to := filepath.Join(dir, unlistedDir)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, name), filepath.Join(to, name))
}

// inspectSmall mends the files whose right content is known: there is no encryption,
// so there are no keys, and the value logs are not collected.
func inspectSmall(dir string) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		switch {
		case f.Name() == "DISCARD": // what could be collected of the value logs, which Badger is never asked for
			err = os.Remove(path)
		case f.Name() == "KEYREGISTRY":
			var content []byte
			if content, err = os.ReadFile(path); err == nil && (len(content) != 28 || !bytes.HasSuffix(content, []byte("Hello Badger"))) {
				err = os.Rename(path, path+asideSuffix)
			}
		case filepath.Ext(path) == ".vlog" || filepath.Ext(path) == ".mem":
			err = noKey(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// logHeaderSize is that of .mem and .vlog files: the number of a key and a nonce.
const logHeaderSize = 20

// noKey sees to it that a log file starts with the number of no key. Badger refuses to
// open one with a key that it does not know.
func noKey(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if size := info.Size(); size < logHeaderSize {
		if size > 0 {
			err = os.Rename(path, path+asideSuffix)
		}
		return err // an empty one is removed as unborn
	}
	var key, none [8]byte
	if _, err := f.ReadAt(key[:], 0); err != nil || key == none {
		return err
	}
	_, err = f.WriteAt(none[:], 0)
	return err
}

// inspectTables compares the tables with the MANIFEST and looks into each, into all
// of it if deep. lost are listed and missing or damaged, unlisted are there all the same.
func inspectTables(o badger.Options, deep bool) (lost, unlisted []uint64, err error) {
	dir := o.Dir
	listed, torn, err := readManifest(dir, o)
	if err != nil {
		return nil, nil, err
	}
	if torn {
		// Its copy stands aside, as a sign that tables may be missing which it named.
		path := filepath.Join(dir, badger.ManifestFilename)
		content, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path+asideSuffix, content, 0o600)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	there := map[uint64]bool{}
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".sst")
		if id, err := strconv.ParseUint(name, 10, 64); ok && err == nil {
			there[id] = true
			if _, ok := listed[id]; !ok {
				unlisted = append(unlisted, id)
			}
		}
	}
	for id, t := range listed {
		if !there[id] {
			lost = append(lost, id)
			continue
		}
		err := inspectTable(table.NewFilename(id, dir), id, t.Compression, deep)
		if errors.Is(err, errDamaged) {
			lost = append(lost, id)
		} else if err != nil {
			return nil, nil, err
		}
	}
	slices.Sort(lost)
	slices.Sort(unlisted)
	return lost, unlisted, nil
}

// readManifest lists the tables of a database, none if it is not there yet. torn
// says that its last entry is cut short, which Badger would cut off.
func readManifest(dir string, o badger.Options) (tables map[uint64]badger.TableManifest, torn bool, err error) {
	path := filepath.Join(dir, badger.ManifestFilename)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if ssts, _ := filepath.Glob(filepath.Join(dir, "*.sst")); len(ssts) > 0 {
			return nil, false, damaged(path, "it is missing, although there are tables")
		}
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	err = catch(path, func() error {
		m, whole, err := badger.ReplayManifestFile(f, 0, o)
		if err != nil {
			return damaged(path, "%v", err)
		}
		tables, torn = m.Tables, whole != info.Size()
		return nil
	})
	return tables, torn, err
}

// inspectTable opens a table as Badger does, which reads its index and its last
// block; deep reads all blocks.
func inspectTable(path string, id uint64, compression options.CompressionType, deep bool) (err error) {
	content, unmap, err := mapFile(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmap()) }()
	if len(content) == 0 {
		return damaged(path, "it is empty")
	}
	return catch(path, func() error {
		t, err := table.OpenInMemoryTable(content, id, &table.Options{
			ReadOnly: true, BlockSize: 4 << 10, Compression: compression, ChkMode: options.OnBlockRead,
		})
		if err == nil && deep {
			err = t.VerifyChecksum()
		}
		if err != nil {
			return damaged(path, "%v", err)
		}
		return nil
	})
}

// catch turns a panic of Badger, or of reading a map whose file is gone, into damage
// of a file.
func catch(file string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			text, _, _ := strings.Cut(strings.TrimSpace(fmt.Sprint(r)), "\n")
			err = damaged(file, "%s", text)
		}
	}()
	return f()
}

// strikeFromManifest takes tables off the list, by another change at its end:
//
//	u32   length of the change set
//	u32   its CRC-32C
//	…     the change set in protobuf: 1: a change {1: table, 2: 1 is delete}
//
// The first two are big-endian. This is Badger's format.
func strikeFromManifest(dir string, tables []uint64) (err error) {
	if len(tables) == 0 {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(dir, badger.ManifestFilename), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
	_, err = f.Write(manifestDeletes(tables))
	return err
}

// manifestDeletes is such a change.
func manifestDeletes(tables []uint64) []byte {
	var set []byte
	for _, id := range tables {
		change := binary.AppendUvarint([]byte{1 << 3}, id)
		change = append(change, 2<<3, 1)
		set = binary.AppendUvarint(append(set, 1<<3|2), uint64(len(change)))
		set = append(set, change...)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(set)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(set, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, set...)
}

var _ journal.Doubter = (*Engine)(nil)

// Doubts implements journal.Doubter.
func (e *Engine) Doubts() []string { return e.doubts }

package badgerengine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4"
)

// Values of the log stand in Badger's value log and only pointers to them in its tables, as in
// WiscKey (Lu et al., FAST 2016): a value is written once, and no table of values is ever built,
// merged or waited for. But Badger logs the error of a failed sync of its value log and reports
// success, and it does not make pointers again that a loss of power took. So the engine syncs by
// itself, and takes the value log for the truth:
//
//   - Badger runs without syncing. Behind each write the engine syncs the file of the value log to
//     which it went, by a descriptor of its own, to which the kernel tells of every failure. Pointers are
//     not synced then. The next write comes behind the sync, so that of all writes only the last can be torn.
//   - When the value log begins its next file, pointers into those before are synced, and the
//     file SYNCED says so.
//   - Opening looks into the files behind that, and writes what has no pointer once more, under the version
//     that it had; so a recovery that is cut short is begun again. Of a write that is not there as a whole nothing is.
//
// A block that was removed has no pointer either. Of what was written since SYNCED, Badger keeps the deletions. If more than that has
// to be looked into, as something is damaged: blocks are removed from a log's beginning, so what stands before the first block with a
// pointer is not wanted.
//
// Badger cuts the last file of its value log where it finds an entry that is not whole, so
// that a flipped bit would take all that stands behind it. It is given an empty one for the last.
//
// What retentions remove is given back by holes in the files; see reclaim.go. Where the system or
// the file system has none, values are in the tables, and Badger syncs its writes.

const (
	// valueFileBytes is the size from which on Badger begins a file; see fileBytesFor. It maps twice as much.
	valueFileBytes = 64 << 20
	// valueFileMost is the greatest, but for what a transaction brings beyond it: opening a killed journal reads as much.
	valueFileMost = 512 << 20
	// valueFiles is how many files of one size there should be at most: Badger has all of them open and mapped.
	valueFiles = 512
	// pointersTable is the size of a table in memory of pointers, and with that of a transaction of them.
	pointersTable = 32 << 20
	// leastApart is the least length of a value that stands apart. Badger's own mark of a transaction's
	// end has up to 20 digits, and has to stand in the table.
	leastApart = 32
	// valuesSuffix is that of files of the value log, memSuffix of files of tables in memory.
	valuesSuffix = ".vlog"
	memSuffix    = ".mem"
)

// groupKey is the key of the entry that every transaction of values has: how many others it has.
// Badger writes a transaction in no particular order.
var groupKey = []byte("g")

// valuesApart says whether values stand apart in a database with these options.
func valuesApart(o badger.Options) bool { return !o.ReadOnly && o.ValueThreshold == leastApart }

// apart makes options with which values stand apart.
func apart(o badger.Options, fileBytes, files, table int64) badger.Options {
	logs, _ := filepath.Glob(filepath.Join(o.Dir, "*"+memSuffix))
	for _, log := range logs {
		if info, err := os.Stat(log); err == nil {
			table = max(table, info.Size()/2) // what a crash left has to fit into a table again
		}
	}
	return o.WithSyncWrites(false).
		WithValueThreshold(leastApart).
		WithValueLogFileSize(fileBytesFor(o.Dir, fileBytes, files)).
		WithValueLogMaxEntries(math.MaxUint32). // a file ends by its size
		WithMemTableSize(table)
}

// valueFilesFor is how many files of one size there should be at most for an engine that
// may have so many open; 0: any number.
func valueFilesFor(maxFiles int) int64 {
	if maxFiles <= 0 {
		return valueFiles
	}
	return max(1, min(valueFiles, int64(maxFiles)/8))
}

// fileBytesFor is the size of the next files: twice as much as least, and twice as much again, while the value
// log has so much that files of that size would be too many.
func fileBytesFor(dir string, least, most int64) int64 {
	files, _ := listValues(dir) // who opens them says what is wrong
	total := int64(0)
	for _, f := range files {
		total += f.size
	}
	size := least
	for size < valueFileMost && total/size >= most {
		size *= 2
	}
	return size
}

// lengthened makes a short value of the engine's own long enough to stand apart.
func lengthened(value []byte) []byte { return append(value, make([]byte, leastApart-len(value))...) }

// groupEntry is the entry that a transaction with so many others has.
func (d *database) groupEntry(others int) *badger.Entry {
	return d.entry(groupKey, lengthened(binary.AppendUvarint(nil, uint64(others))))
}

// mark says how far pointers are on disk. It is a file of numbers in decimal: File, Version, then number and size of each older
// file, and at last the CRC-32 (IEEE) of what stands before it, in hex.
type mark struct {
	File    uint32 // that into all older ones are
	Version uint64 // of the last write of values before that
	Older   []valueFile
}

const markFile = "SYNCED"

func encodeMark(m mark) []byte {
	b := fmt.Appendf(nil, "%d %d\n", m.File, m.Version)
	for _, f := range m.Older {
		b = fmt.Appendf(b, "%d %d\n", f.id, f.size)
	}
	return fmt.Appendf(b, "%08x\n", crc32.ChecksumIEEE(b))
}

// decodeMark is total.
func decodeMark(content []byte) (m mark, ok bool) {
	fields := strings.Fields(string(content))
	if len(fields) < 3 || len(fields)%2 == 0 {
		return mark{}, false
	}
	for i := 0; i+1 < len(fields); i += 2 {
		id, err := strconv.ParseUint(fields[i], 10, 32)
		n, err2 := strconv.ParseUint(fields[i+1], 10, 64)
		if err != nil || err2 != nil || i > 0 && n > math.MaxInt64 {
			return mark{}, false
		}
		if i == 0 {
			m.File, m.Version = uint32(id), n
		} else {
			m.Older = append(m.Older, valueFile{id: uint32(id), size: int64(n)})
		}
	}
	return m, string(encodeMark(m)) == string(content)
}

// readMark gives the zero mark if there is none, or it is damaged: everything is looked into then.
func readMark(dir string) (m mark, ok bool, err error) {
	content, err := os.ReadFile(filepath.Join(dir, markFile))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return mark{}, false, err
	}
	if m, ok = decodeMark(content); !ok {
		m = mark{}
	}
	return m, ok, nil
}

func writeMark(dir string, m mark) (err error) {
	path := filepath.Join(dir, markFile)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(encodeMark(m))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(path+".new", path), syncPath(dir))
}

// notePointers syncs pointers and notes that they are, into all files before one.
func notePointers(dir string, file uint32, version uint64) error {
	err := syncPointers(dir)
	files, listed := listValues(dir)
	if err = errors.Join(err, listed); err != nil {
		return err
	}
	m := mark{File: file, Version: version}
	for _, f := range files {
		if f.id < file && f.size > logHeaderSize {
			m.Older = append(m.Older, valueFile{id: f.id, size: f.size})
		}
	}
	return writeMark(dir, m)
}

// unsyncedFile is there once a sync of values failed. The kernel takes what it could not write for
// written then, and whoever opens the journal before the next start of the system reads it all the
// same; so it is written again.
const unsyncedFile = "UNSYNCED"

// noteUnsynced need not be on disk: the next start of the system reads what the disk has.
func noteUnsynced(dir string) error {
	return os.WriteFile(filepath.Join(dir, unsyncedFile), nil, 0o600)
}

// syncPath syncs a file or directory; one that is gone is no error.
func syncPath(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = f.Sync()
	if runtime.GOOS == "windows" && os.IsPermission(err) { // it syncs only what may be written, and no directory
		err = nil
	}
	return errors.Join(err, f.Close())
}

// syncPointers syncs all pointers, and deletions, that were written.
func syncPointers(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*"+memSuffix))
	for _, f := range files {
		err = errors.Join(err, syncPath(f)) // Badger may just have removed it: it is in a table, then
	}
	return errors.Join(err, syncPath(dir))
}

// values syncs the value log of a database. Its methods are called by who holds database.writing.
type values struct {
	dir  string
	id   uint32   // of the file to which Badger writes
	file *os.File // that

	syncFile func(*os.File) error
}

func valuesPath(dir string, id uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%06d%s", id, valuesSuffix))
}

// openValues begins to follow the value log of an open database.
func openValues(dir string) (*values, error) {
	files, err := listValues(dir)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, damaged(dir, "it has no value log")
	}
	v := &values{dir: dir, id: files[len(files)-1].id, syncFile: syncData}
	v.file, err = os.Open(valuesPath(dir, v.id))
	return v, errors.Join(err, syncPath(dir))
}

// sync syncs what was written. turned says that Badger has begun another file: writes go there
// from now on.
func (v *values) sync() (turned bool, err error) {
	for {
		if err := v.syncFile(v.file); err != nil {
			return false, errors.Join(err, noteUnsynced(v.dir))
		}
		next, err := os.Open(valuesPath(v.dir, v.id+1))
		if errors.Is(err, fs.ErrNotExist) {
			return turned, nil
		}
		if err != nil {
			return false, err
		}
		err = errors.Join(v.file.Close(), syncPath(v.dir))
		v.id, v.file = v.id+1, next
		if turned = true; err != nil {
			return false, err
		}
	}
}

func (v *values) close() error { return v.file.Close() }

// valueFile is a file of the value log.
type valueFile struct {
	id   uint32
	size int64
	disk int64 // bytes that it takes on disk
}

// listValues lists the files of a value log, the oldest first.
func listValues(dir string) (files []valueFile, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), valuesSuffix)
		id, bad := strconv.ParseUint(name, 10, 32)
		if !ok || bad != nil {
			continue
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, valueFile{uint32(id), info.Size(), onDisk(info)})
	}
	slices.SortFunc(files, func(a, b valueFile) int { return int(int64(a.id) - int64(b.id)) })
	return files, err
}

// emptyMost bounds what a file takes on disk that is nothing but holes: where they touch they leave pages of zeros.
const emptyMost = 64 * pageBytes

// prepareValues makes the value log fit for being opened by Badger: see above. It lists the
// files, and says of them how far pointers are synced.
func prepareValues(dir string) (m mark, files []valueFile, err error) {
	m, marked, err := readMark(dir)
	if err != nil {
		return m, nil, err
	}
	if files, err = listValues(dir); err != nil {
		return m, nil, err
	}
	if files, err = putForeignAside(dir, files); err != nil {
		return m, nil, err
	}
	if err := missValues(dir, m, files); err != nil {
		return m, nil, err
	}
	if files, err = removeHoles(dir, m, files); err != nil {
		return m, nil, err
	}
	last := m.File
	for _, f := range files {
		last = max(last, f.id)
	}
	if n := len(files); n == 0 && !marked || n > 0 && files[n-1].id == last && files[n-1].size <= logHeaderSize {
		return m, files, nil
	}
	return m, files, os.WriteFile(valuesPath(dir, last+1), make([]byte, logHeaderSize), 0o600)
}

// putForeignAside puts files aside that begin with an entry of another journal: a pointer does not tell whose its value is.
func putForeignAside(dir string, files []valueFile) (ours []valueFile, err error) {
	lineage, ok, err := readLineage(filepath.Dir(dir))
	if err != nil || !ok || lineage == 0 {
		return files, err
	}
	for _, f := range files {
		foreign := false
		err := withValues(dir, f.id, func(content []byte, _ *os.File) error {
			e, ok := parseValue(content[logHeaderSize:])
			foreign = ok && e.expires != lineage
			return nil
		})
		if err != nil && !errors.Is(err, errDamaged) {
			return nil, err
		}
		if !foreign {
			ours = append(ours, f)
			continue
		}
		path := valuesPath(dir, f.id)
		if err := os.Rename(path, path+asideSuffix); err != nil {
			return nil, err
		}
	}
	return ours, nil
}

// missValues leaves a sign of each file that is gone or was cut short.
func missValues(dir string, m mark, files []valueFile) error {
	size := map[uint32]int64{}
	for _, f := range files {
		size[f.id] = f.size
	}
	for _, f := range m.Older {
		if size[f.id] >= f.size {
			continue
		}
		sign, err := os.OpenFile(valuesPath(dir, f.id)+asideSuffix, os.O_CREATE|os.O_RDONLY, 0o600) // it may be itself that stands there
		if err != nil {
			return err
		}
		if err := sign.Close(); err != nil {
			return err
		}
	}
	return nil
}

// removeHoles removes files in which there is nothing any more.
func removeHoles(dir string, m mark, files []valueFile) (left []valueFile, err error) {
	var gone []valueFile
	for _, f := range files {
		empty := false
		if f.id < m.File && f.size > logHeaderSize && f.disk <= emptyMost {
			err := withValues(dir, f.id, func(content []byte, file *os.File) error {
				data, err := behindZeros(content, file, logHeaderSize)
				empty = data == len(content)
				return err
			})
			if err != nil && !errors.Is(err, errDamaged) {
				return nil, err
			}
		}
		if empty {
			gone = append(gone, f)
		} else {
			left = append(left, f)
		}
	}
	if len(gone) == 0 {
		return files, nil
	}
	m.Older = slices.DeleteFunc(m.Older, func(f valueFile) bool {
		return slices.ContainsFunc(gone, func(g valueFile) bool { return g.id == f.id })
	})
	if err := writeMark(dir, m); err != nil { // first, or they would be missed
		return nil, err
	}
	for _, f := range gone {
		if err := os.Remove(valuesPath(dir, f.id)); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// storedValue is an entry of the value log.
type storedValue struct {
	key      []byte
	version  uint64
	userMeta byte
	expires  uint64
	value    []byte
	size     int // of all of it in the file
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// parseValue reads the entry with which b begins. It is total. This is Badger's format:
//
//	u8        meta
//	u8        user meta
//	uvarint   length of the key, with its version
//	uvarint   length of the value
//	uvarint   time of expiry
//	…         key, u64 2^64-1 - version, value
//	u32       CRC-32C of it all
//
// Integers are big-endian.
func parseValue(b []byte) (e storedValue, ok bool) {
	if len(b) < 2 {
		return e, false
	}
	e.userMeta = b[1]
	at := 2
	var keyLen, valueLen uint64
	for _, number := range []*uint64{&keyLen, &valueLen, &e.expires} {
		n, width := binary.Uvarint(b[at:])
		if width <= 0 {
			return e, false
		}
		*number = n
		at += width
	}
	rest := uint64(len(b) - at)
	if keyLen <= 8 || keyLen > math.MaxUint16 || keyLen > rest || valueLen > rest-keyLen || rest-keyLen-valueLen < crc32.Size {
		return e, false
	}
	value := at + int(keyLen)
	end := value + int(valueLen)
	if crc32.Checksum(b[:end], castagnoli) != binary.BigEndian.Uint32(b[end:]) {
		return e, false
	}
	e.key, e.version = b[at:value-8], math.MaxUint64-binary.BigEndian.Uint64(b[value-8:])
	e.value, e.size = b[value:end], end+crc32.Size
	return e, true
}

// withValues hands the content of a file of values over, mapped, for as long as the call lasts. Of one that is
// gone there is nothing to be said.
func withValues(dir string, id uint32, use func(content []byte, f *os.File) error) (err error) {
	path := valuesPath(dir, id)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	content, unmap, err := mapFile(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmap()) }()
	if len(content) <= logHeaderSize {
		return nil
	}
	var inner error
	err = catch(path, func() error { inner = use(content, f); return nil })
	return errors.Join(err, inner)
}

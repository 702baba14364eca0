package badgerlog

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
)

// Badger opens its files on goroutines of its own, and trusts them. A table that was cut short, or whose footer has
// a flipped bit, is a panic or a SIGBUS there, which ends the process. A table that its MANIFEST does not name is
// deleted. The newest file of values is cut at the first entry that is not whole, and the collection of garbage
// takes such an entry for the end of a file. So files are inspected before Badger opens them, where a panic can be
// caught. A damaged file is quarantined: it gets asideSuffix after its name, and is never deleted. The other files
// are still read. The journal is told, and looks for what is missing (see Log.Quarantined).
//
// This is the list of all internals of Badger that the log relies on. TestBadgersVersion fails when Badger's version
// changes. Whoever changes it checks each of them:
//
//   1. Names: N.sst tables, N.mem logs of tables in memory, N.vlog files of values, MANIFEST, KEYREGISTRY, DISCARD.
//      Numbers of files of values grow, and the one with the greatest is the newest.
//   2. .mem and .vlog begin with 20 bytes, of which the first 8 are zero if nothing is encrypted. A .vlog that is
//      nothing else is empty; one of 0 bytes is refused. A .mem is made twice as large as its table.
//   3. Entries of .vlog and .mem: see parseValue. A .mem is cut when it is opened, and of .vlog only the newest, and a
//      new one is begun then. A finished .vlog is cut to its content before the next is made.
//   4. MANIFEST: records of u32 length, u32 CRC-32C and a protobuf; see strikeFromManifest. ReplayManifestFile
//      reads it.
//   5. Package table opens a table, and verifies it, without a database.
//   6. KEYREGISTRY has 28 bytes that end in "Hello Badger" if nothing is encrypted, and is made again if it is
//      missing.
//   7. DISCARD has slots of u64 file and u64 bytes, big-endian, sorted by file, up to the first with file 0. With
//      other content RunValueLogGC may never return. It is made again if it is missing. RunValueLogGC takes the
//      first file with the greatest count, or, if that is the newest or too little of it was dropped, none. It sets
//      the count of a file that it has collected to 0.
//   8. A value that cannot be read is logged and returned as an empty one, without an error.
//   9. Readers of a value hold a lock of its file, also after a fault of memory, and Close waits for them.
//  10. Values are read ahead on goroutines of Badger's own, where nobody can catch a fault, unless PrefetchValues
//      is false.
//  11. An open iterator has the collection of garbage leave files where they are, until it is closed.
//  12. DropPrefix writes all tables in memory to disk if there is a key with the prefix.
//  13. Flatten waits for the merges that are under way, and restarts them afterwards.
//  14. The time of expiry of an entry is compared with now, and means nothing else; see lineage.go.
//  15. RunValueLogGC reads the version of the latest write without a lock; see race_on.go.
//  16. Of entries with the same key and version the one that was written last counts; see recover.go.
//  17. The texts and formats in errors.go, and the names of the expvars in Written.

const (
	asideSuffix   = ".damaged"
	valuesSuffix  = ".vlog"
	memSuffix     = ".mem"
	discardFile   = "DISCARD"
	logHeaderSize = 20 // of .mem and .vlog
)

// removeEmpty removes empty log files. Badger makes them, if it is killed before it has given them a size, and
// refuses to open a directory that has one.
func removeEmpty(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); ext != memSuffix && ext != valuesSuffix {
			continue
		}
		info, err := f.Info()
		if err == nil && info.Mode().IsRegular() && info.Size() == 0 {
			err = os.Remove(filepath.Join(dir, f.Name()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// quarantineTables quarantines the tables that Badger must not open, and strikes them from its list.
func (l *Log) quarantineTables() error {
	dir := l.badger()
	lost, unlisted, err := inspectTables(l.badgerOptions(), l.options.Deep)
	if err != nil {
		return err
	}
	for _, id := range unlisted {
		// A crash during a compaction leaves such a table, whose content is elsewhere, too. But if the MANIFEST has
		// lost its end, the table may be the only one with its content.
		if err := keepUnlisted(dir, table.IDToFilename(id)); err != nil {
			return err
		}
	}
	for _, id := range lost {
		file := table.NewFilename(id, dir)
		err := os.Rename(file, file+asideSuffix)
		if errors.Is(err, fs.ErrNotExist) { // the file is missing: leave a sign
			err = os.WriteFile(file+asideSuffix, nil, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return strikeFromManifest(dir, lost)
}

// unlistedDir has the tables that no MANIFEST names, until the next opening.
const unlistedDir = "unlisted"

func clearUnlisted(dir string) error { return os.RemoveAll(filepath.Join(dir, unlistedDir)) }

func keepUnlisted(dir, name string) error {
	to := filepath.Join(dir, unlistedDir)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, name), filepath.Join(to, name))
}

// mendSmall mends files whose right content is known: nothing is encrypted, so there are no keys.
func mendSmall(dir string) error {
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
		case f.Name() == discardFile:
			var content []byte
			if content, err = os.ReadFile(path); err != nil {
				break
			}
			if _, sound := parseDiscards(content); !sound {
				err = os.Remove(path)
			}
		case f.Name() == "KEYREGISTRY":
			var content []byte
			if content, err = os.ReadFile(path); err != nil {
				break
			}
			if len(content) != 28 || !bytes.HasSuffix(content, []byte("Hello Badger")) {
				err = os.Rename(path, path+asideSuffix)
			}
		case filepath.Ext(path) == valuesSuffix || filepath.Ext(path) == memSuffix:
			err = noKey(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// discards are counts of bytes that were dropped, by file of values.
type discards map[uint32]int64

// parseDiscards is total. ok is false if Badger would not survive the content. The file is removed then, so what was
// dropped before does not count, and the space of it is reclaimed later.
func parseDiscards(content []byte) (counts discards, ok bool) {
	if len(content) < 1<<20 || len(content)%16 != 0 {
		return nil, false
	}
	counts = discards{}
	last := uint64(0)
	for ; len(content) > 0; content = content[16:] {
		file, bytes := binary.BigEndian.Uint64(content), binary.BigEndian.Uint64(content[8:])
		if file == 0 {
			return counts, true
		}
		if file <= last || file > math.MaxUint32 || bytes > math.MaxInt64 {
			return nil, false
		}
		counts[uint32(file)] = int64(bytes)
		last = file
	}
	return nil, false // it is full, which Badger never lets it be
}

// readDiscards reads the counts.
func readDiscards(dir string) (discards, error) {
	content, err := os.ReadFile(filepath.Join(dir, discardFile))
	counts, _ := parseDiscards(content)
	return counts, err
}

// toCollect returns which file RunValueLogGC takes next, and the ratio with which it takes it; 0 if that is not worth
// it. It takes the file of which the most bytes were dropped. So collecting is worth it if there are some files that it
// takes first of which together enough was dropped.
func toCollect(dir string) (id uint32, ratio float64, err error) {
	counts, err := readDiscards(dir)
	files, listed := listValues(dir)
	if err = errors.Join(err, listed); err != nil || len(files) == 0 {
		return 0, 0, err
	}
	files = files[:len(files)-1] // never the newest
	slices.SortStableFunc(files, func(a, b valueFile) int { return cmp.Compare(counts[b.id], counts[a.id]) })
	dropped, size := int64(0), int64(0)
	for _, f := range files {
		dropped, size = dropped+counts[f.id], size+f.size
		if dropped > 0 && float64(dropped) >= collectRatio*float64(size) {
			first := files[0]
			return first.id, min(collectRatio, 0.99*float64(counts[first.id])/float64(first.size)), nil
		}
	}
	return 0, 0, nil
}

// noKey makes a log file begin with the number of no key. Badger refuses to open one with a key that it does not know.
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
		return err // removeEmpty removes empty ones
	}
	var key, none [8]byte
	if _, err := f.ReadAt(key[:], 0); err != nil || key == none {
		return err
	}
	_, err = f.WriteAt(none[:], 0)
	return err
}

// inspectTables compares the tables with the MANIFEST and inspects each, with deep all of its blocks. lost tables are
// listed but missing or damaged; unlisted ones are there but not listed.
func inspectTables(o badger.Options, deep bool) (lost, unlisted []uint64, err error) {
	dir := o.Dir
	listed, torn, err := readManifest(dir, o)
	if err != nil {
		return nil, nil, err
	}
	if torn {
		// A copy of it is quarantined, as a sign that tables may be missing which it named.
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

// readManifest lists the tables of a database, none if there is no MANIFEST yet. torn says that its last entry is cut
// short; Badger would remove that entry.
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

// catch turns a panic of Badger, or a fault of memory in the map of a file, into damage of a file.
func catch(file string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = damaged(file, "%s", firstLine(r))
		}
	}()
	return f()
}

// strikeFromManifest strikes tables from the list, by a change that it appends:
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
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(set, castagnoli))
	return append(b, set...)
}

// valueFile is a file of values.
type valueFile struct {
	id   uint32
	size int64
	disk int64 // bytes that it takes on disk
}

func valuesPath(dir string, id uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%06d%s", id, valuesSuffix))
}

// listValues lists the files of values, the oldest first.
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

// storedValue is an entry of a file of values.
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
	if keyLen <= 8 || keyLen > math.MaxUint16 || keyLen > rest || valueLen > rest-keyLen ||
		rest-keyLen-valueLen < crc32.Size {
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

// eachValue calls use with the whole entries of a log file, and where they begin. After a damaged place it finds the
// next entry by the lineage, which each has; with lineage 0 it ends there.
func eachValue(content []byte, lineage uint64, use func(at int, e storedValue) error) error {
	sign := binary.AppendUvarint(nil, lineage)
	for at := logHeaderSize; at < len(content); {
		e, ok := parseValue(content[at:])
		found := at
		for from := at; !ok; {
			next := bytes.Index(content[from:], sign)
			if next < 0 || lineage == 0 {
				return nil
			}
			// Meta, user meta and two lengths come before it.
			for back := 2 + 2*binary.MaxVarintLen32; back >= 4 && !ok; back-- {
				if begin := from + next - back; begin >= at {
					e, ok = parseValue(content[begin:])
					ok = ok && e.expires == lineage
					found = begin
				}
			}
			from += next + 1
		}
		if err := use(found, e); err != nil {
			return err
		}
		at = found + e.size
	}
	return nil
}

// wholeUpTo returns the end of the whole entries at the beginning of a log file, and their greatest version.
func wholeUpTo(content []byte) (end int, version uint64) {
	end = logHeaderSize
	_ = eachValue(content, 0, func(at int, e storedValue) error { // 0: up to the first that is not whole
		end, version = at+e.size, max(version, e.version)
		return nil
	})
	return end, version
}

// onlyZeros reports whether b has nothing but zeros, as the end of a file has that is larger than its content.
func onlyZeros(b []byte) bool {
	const page = 4 << 10
	var zeros [page]byte
	for ; len(b) >= page; b = b[page:] {
		if !bytes.Equal(b[:page], zeros[:]) {
			return false
		}
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// withMap calls use with the content of a file, mapped for the time of the call. It does not call it if the file is
// missing or has no entries.
func withMap(path string, use func(content []byte)) (err error) {
	content, unmap, err := mapFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmap()) }()
	if len(content) <= logHeaderSize {
		return nil
	}
	return catch(path, func() error { use(content); return nil })
}

// noteLostPointers notes that pointers are lost, if the log of a table in memory has something after the first entry
// that is not whole. Badger cuts it there.
func noteLostPointers(dir string) error {
	logs, err := filepath.Glob(filepath.Join(dir, "*"+memSuffix))
	for _, log := range logs {
		lost, after := false, uint64(0)
		damage := withMap(log, func(content []byte) {
			end, version := wholeUpTo(content)
			lost, after = !onlyZeros(content[end:]), version
		})
		if errors.Is(damage, errDamaged) {
			lost, damage = true, nil
		}
		if err = errors.Join(err, damage); err == nil && lost {
			err = redo{after: after}.note(dir)
		}
	}
	return err
}

// keepNewest keeps Badger from cutting the newest file of values at a damaged place, if acknowledged entries come
// after it. Otherwise the place is the end of a write that was cut short. It makes an empty file, which is the
// newest then. It also reads the greatest version of the newest file that has entries.
func (l *Log) keepNewest() error {
	dir := l.badger()
	files, err := listValues(dir)
	if err != nil {
		return err
	}
	keep := false
	for i := len(files) - 1; i >= 0 && l.version == 0; i-- {
		path, end := valuesPath(dir, files[i].id), logHeaderSize // of what follows on each other from the beginning
		err := withMap(path, func(content []byte) {
			_ = eachValue(content, l.lineage, func(at int, e storedValue) error {
				l.version = max(l.version, e.version)
				if at == end {
					end += e.size
				} else if log, sequence, ok := blockOf(e.key); ok && sequence <= l.heads.last[log].Sequence {
					keep = true
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
		if keep && i == len(files)-1 {
			empty := os.WriteFile(valuesPath(dir, files[i].id+1), make([]byte, logHeaderSize), 0o600)
			return errors.Join(empty, syncPath(path))
		}
	}
	return nil
}

// quarantineForeign quarantines files of values that begin with an entry of another journal: a pointer does not tell
// which journal its value belongs to.
func (l *Log) quarantineForeign() error {
	dir := l.badger()
	files, err := listValues(dir)
	if err != nil || l.lineage == 0 {
		return err
	}
	for _, f := range files {
		foreign := false
		err := withMap(valuesPath(dir, f.id), func(content []byte) {
			e, ok := parseValue(content[logHeaderSize:])
			foreign = ok && e.expires != l.lineage
		})
		if err != nil && !errors.Is(err, errDamaged) {
			return err
		}
		if path := valuesPath(dir, f.id); foreign {
			if err := os.Rename(path, path+asideSuffix); err != nil {
				return err
			}
		}
	}
	return nil
}

// wholeValues reports whether a file of values has nothing but whole entries, and zeros at its end.
func wholeValues(dir string, id uint32) (whole bool, err error) {
	whole = true
	err = withMap(valuesPath(dir, id), func(content []byte) {
		end, _ := wholeUpTo(content)
		whole = onlyZeros(content[end:])
	})
	if errors.Is(err, errDamaged) {
		return false, nil
	}
	return whole, err
}

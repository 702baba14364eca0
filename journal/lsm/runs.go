package lsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The file RUNS lists what there is:
//
//	8 bytes   "BHRUNS", 0, 1
//	uvarint   the next number of a table
//	uvarint   number of runs, the newest first; for each
//	          uvarint tier, uvarint number of tables; for each
//	          uvarint number, size of the file, offset of its directory, length of that unpacked;
//	          u32 CRC-32C of that; uvarint entries, uvarint deleted ones of them; and as
//	          uvarint length and bytes each the first and the last key
//	u32       CRC-32C of all of this
//
// Integers are little-endian.
const (
	runsFile  = "RUNS"
	runsMagic = "BHRUNS\x00\x01"
	tableExt  = ".table"
	newExt    = ".new" // of RUNS while it is written
	badFile   = "DAMAGED"
)

// listed is what RUNS says.
type listed struct {
	next uint64
	runs []listedRun
}

type listedRun struct {
	tier   int
	tables []about
}

func encodeRuns(next uint64, runs []*run) []byte {
	b := append([]byte(nil), runsMagic...)
	b = binary.AppendUvarint(b, next)
	b = binary.AppendUvarint(b, uint64(len(runs)))
	for _, r := range runs {
		b = binary.AppendUvarint(b, uint64(r.tier))
		b = binary.AppendUvarint(b, uint64(len(r.tables)))
		for _, t := range r.tables {
			for _, n := range []uint64{t.id, uint64(t.size), uint64(t.metaAt), uint64(t.metaRaw)} {
				b = binary.AppendUvarint(b, n)
			}
			b = binary.LittleEndian.AppendUint32(b, t.metaCRC)
			b = binary.AppendUvarint(binary.AppendUvarint(b, t.entries), t.deleted)
			for _, key := range [][]byte{t.first, t.last} {
				b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
			}
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeRuns is total. What it returns are views.
func decodeRuns(b []byte) (l listed, err error) {
	if len(b) < len(runsMagic)+4 || string(b[:len(runsMagic)]) != runsMagic {
		return l, errors.New("it does not begin as it should")
	}
	body := b[:len(b)-4]
	if binary.LittleEndian.Uint32(b[len(body):]) != crc32.Checksum(body, castagnoli) {
		return l, errors.New("its checksum is wrong")
	}
	r := reader{b: body[len(runsMagic):]}
	l.next = r.uint(math.MaxInt64)
	for range r.uint(uint64(len(b))) {
		one := listedRun{tier: int(r.uint(1 << 10))}
		for range r.uint(uint64(len(b))) {
			t := about{id: r.uint(math.MaxInt64), size: int64(r.uint(math.MaxInt64)), metaAt: int64(r.uint(math.MaxInt64)),
				metaRaw: int64(r.uint(rawMost)), metaCRC: r.u32(), entries: r.uint(math.MaxUint64), deleted: r.uint(math.MaxUint64)}
			t.first, t.last = r.bytes(), r.bytes()
			if r.bad || t.metaAt > t.size || t.size-t.metaAt > rawMost || t.id >= l.next {
				return listed{}, errors.New("it is malformed")
			}
			one.tables = append(one.tables, t)
		}
		if len(one.tables) == 0 {
			return listed{}, errors.New("it is malformed")
		}
		l.runs = append(l.runs, one)
	}
	if r.bad || len(r.b) > 0 {
		return listed{}, errors.New("it is malformed")
	}
	return l, nil
}

func tablePath(dir string, id uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%08d%s", id, tableExt))
}

// readRuns reads RUNS. If there is none, the store has not begun.
func readRuns(dir string) (l listed, begun bool, err error) {
	path := filepath.Join(dir, runsFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		tables, err := filepath.Glob(filepath.Join(dir, "*"+tableExt))
		if err == nil && len(tables) > 0 {
			err = damaged(path, "it is missing, although there are tables")
		}
		return listed{next: 1}, false, err
	}
	if err != nil {
		return listed{}, false, err
	}
	if l, err = decodeRuns(content); err != nil {
		return listed{}, false, damaged(path, "%v", err)
	}
	return l, true, nil
}

// writeRuns replaces RUNS. After an error either is there.
func writeRuns(dir string, content []byte, fault func(string) error) (err error) {
	path := filepath.Join(dir, runsFile)
	if err := fault("list"); err != nil {
		return err
	}
	f, err := os.OpenFile(path+newExt, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fault("rename"); err != nil {
		return err
	}
	if err := os.Rename(path+newExt, path); err != nil {
		return err
	}
	if err := fault("sync directory"); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes names in a directory survive a loss of power, where a system can do that.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || os.IsPermission(err) { // as on Windows
		err = nil
	}
	return errors.Join(err, d.Close())
}

// removeLeftovers removes what a crash left: tables that are not listed, and a list
// that was not finished.
func removeLeftovers(dir string, l listed) error {
	known := map[string]bool{}
	for _, r := range l.runs {
		for _, t := range r.tables {
			known[filepath.Base(tablePath(dir, t.id))] = true
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		name := f.Name()
		stem, isTable := strings.CutSuffix(name, tableExt)
		if _, err := strconv.ParseUint(stem, 10, 64); isTable && err == nil && !known[name] || name == runsFile+newExt {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

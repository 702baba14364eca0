package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/commitlog"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
	"github.com/bulkhead-wasm/bulkhead/journal/journaltest"
	"github.com/bulkhead-wasm/bulkhead/journal/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a journal in memory that tests append to.
type source struct {
	*commitlog.Journal
	t    *testing.T
	disk *journaltest.Memory
	n    int
	at   map[string]journal.Version
}

func newSource(t *testing.T) *source {
	t.Helper()
	return newSourceWith(t, commitlog.Options{MaxBatchBytes: 600})
}

func newSourceWith(t *testing.T, o commitlog.Options) *source {
	t.Helper()
	s := &source{t: t, disk: journaltest.NewMemory(), at: map[string]journal.Version{}}
	var err error
	if s.Journal, err = commitlog.Open(t.Context(), s.disk.Storage(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// add appends n commits, a third of them without events, to two logs.
func (s *source) add(n int) {
	s.t.Helper()
	for range n {
		log := journal.LogName([]string{"bank", "orders"}[s.n%2])
		key := fmt.Sprint("k", s.n%5)
		id := string(log) + "/" + key
		r, err := journaltest.Append(s.Journal, journaltest.Commit(log, key, s.at[id], fmt.Sprint("c", s.n), s.n%3))
		if err != nil {
			s.t.Fatal(err)
		}
		s.at[id] = r.Version()
		s.n++
	}
}

var module = []byte("\x00asm a module")

func withModules() Options {
	digest := Hash(sha256.Sum256(module))
	return Options{
		Modules: func() ([]Hash, error) { return []Hash{digest}, nil },
		Module:  func(Hash) ([]byte, error) { return module, nil },
	}
}

// backup writes a file of the directory, as the program does.
func (s *source) backup(dir string) (string, *Manifest) {
	s.t.Helper()
	name, since, err := Next(dir, false)
	if err != nil {
		s.t.Fatal(err)
	}
	o := withModules()
	o.Since = since
	var m *Manifest
	err = Create(name, func(f *os.File) (err error) { m, err = Write(s.t.Context(), f, s, o); return err })
	if err != nil {
		s.t.Fatal(err)
	}
	return name, m
}

// dump is every byte of a storage's logs.
func dump(t *testing.T, e journal.Storage) string {
	t.Helper()
	var out strings.Builder
	logs, err := e.Log.Logs(t.Context())
	for _, log := range logs {
		if err == nil {
			err = e.Log.Blocks(t.Context(), log, 0, func(b journal.Block) error {
				fmt.Fprintf(&out, "%s %d %d %x\n", b.Log, b.First, b.Sequence, b.Data)
				return nil
			})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// mustVerify opens the journal once, which completes its index, and verifies it.
func mustVerify(t *testing.T, m *journaltest.Memory) {
	t.Helper()
	m = m.CrashClone(0)
	j, err := commitlog.Open(t.Context(), m.Storage(), commitlog.Options{})
	if err == nil {
		err = j.Close(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Run(t.Context(), m.CrashClone(0).Storage(), verify.Options{})
	if err != nil || report.Found > 0 {
		t.Errorf("verify: %v, %v", report.Problems, err)
	}
}

// A complete backup and what continues it restore to the same bytes, which pass verify,
// while the journal goes on in between.
func TestBackupsRestoreToTheSameBytes(t *testing.T) {
	s := newSource(t)
	dir := t.TempDir()
	var last *Manifest
	for i, n := range []int{40, 25, 0, 1} {
		s.add(n)
		_, m := s.backup(dir)
		if i > 0 && (m.Previous != last.ID || m.Modules[0].Here) {
			t.Errorf("backup %d does not continue: %+v", i, m)
		}
		if i == 2 && m.Batches != 0 {
			t.Errorf("a backup of nothing new has %d batches", m.Batches)
		}
		last = m
	}
	want := dump(t, s.disk.Storage())
	s.add(3) // is not in the backup
	files, err := Files(dir)
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	if m, err := Check(t.Context(), files, RestoreOptions{}); err != nil || m.ID != last.ID {
		t.Errorf("check: %+v, %v", m, err)
	}
	m := journaltest.NewMemory()
	var stored []byte
	_, err = Restore(t.Context(), m.Storage(), files,
		RestoreOptions{Module: func(_ Hash, b []byte) error { stored = bytes.Clone(b); return nil }})
	if err != nil || !bytes.Equal(stored, module) {
		t.Fatal(err, stored)
	}
	if dump(t, m.Storage()) != want {
		t.Error("the restored bytes are others")
	}
	mustVerify(t, m)
	if _, err := Restore(t.Context(), m.Storage(), files, RestoreOptions{}); journal.KindOf(
		err) != journal.KindInvalid {
		t.Errorf("restoring over what is there: %v", err)
	}
}

// sameHistory holds one journal's logs to be those of the other, as far as both have come.
func sameHistory(t *testing.T, one, other *commitlog.Journal) {
	t.Helper()
	for _, log := range []journal.LogName{"bank", "orders"} {
		if x, y := one.Origin(log), other.Origin(log); x != y || x == journal.Unborn(log) || x == (journal.Stamp{}) {
			t.Errorf("%s is %x and %x", log, x, y)
		}
		for at := one.First(log) - 1; at <= min(one.Head(log), other.Head(log)); at++ {
			x, errX := one.StampAt(t.Context(), log, at)
			y, errY := other.StampAt(t.Context(), log, at)
			if x != y || (x == journal.Stamp{}) != (at == 0) || errX != nil || errY != nil {
				t.Errorf("%s at %d is %x and %x: %v, %v", log, at, x, y, errX, errY)
			}
		}
	}
}

// A backup that is made while commits go on is of one moment: each command of the
// writer below finds in it what it rests on.
func TestBackupUnderLoad(t *testing.T) {
	s := newSource(t)
	s.add(1)
	// So many beside each backup. Without a bound each would find more than the one before,
	// take longer, and so leave the time for more.
	const pairsEach = 100
	more, stopped := make(chan int), make(chan bool)
	go func() {
		defer close(stopped)
		i := 0
		for n := range more {
			for range n {
				// First in orders, then in bank: whoever sees the second sees the first.
				for _, log := range []journal.LogName{"orders", "bank"} {
					if _, err := journaltest.Append(s.Journal, journaltest.Commit(log, "pair", journal.Version(i),
						fmt.Sprint(log, i), 1)); err != nil {
						t.Error(err)
					}
				}
				i++
			}
		}
	}()
	defer func() { close(more); <-stopped }()
	for range 20 {
		more <- pairsEach
		var file bytes.Buffer
		if _, err := Write(t.Context(), &file, s, Options{}); err != nil {
			t.Fatal(err)
		}
		pairs := map[journal.LogName]int{}
		_, err := Read(&file, Handler{Commit: func(c *journal.Committed) error {
			if c.Command.Key == "pair" {
				pairs[c.Log]++
			}
			return nil
		}})
		if d := pairs["orders"] - pairs["bank"]; err != nil || d != 0 && d != 1 {
			t.Errorf("the backup has %v, %v", pairs, err)
		}
	}
}

// A log whose beginning a retention has deleted is backed up and restored with what it
// has kept; a backup of what was before is not continued past what is gone.
func TestBackupsOfATrimmedLog(t *testing.T) {
	s := newSource(t)
	s.add(60)
	dir := t.TempDir()
	s.backup(dir)
	s.add(2)
	_, second := s.backup(dir)
	retain := func(before journal.Position) {
		t.Helper()
		r, err := s.Retain(t.Context(), "bank", journal.Retention{Before: before, Force: true})
		if err != nil || r.Batches == 0 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	// Batches that the last backup does not end with may go.
	retain(10)
	s.add(4)
	s.backup(dir)
	full := filepath.Join(t.TempDir(), "full"+Extension)
	var m *Manifest
	err := Create(full, func(f *os.File) (err error) { m, err = Write(t.Context(), f, s, Options{}); return err })
	if err != nil {
		t.Fatal(err)
	}
	want := dump(t, s.disk.Storage())
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range [][]string{files, {full}} {
		if _, err := Check(t.Context(), files, RestoreOptions{}); err != nil {
			t.Error(err)
		}
		back := journaltest.NewMemory()
		if _, err := Restore(t.Context(), back.Storage(), files, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		mustVerify(t, back)
		j, err := commitlog.Open(t.Context(), back.Storage(), commitlog.Options{}) // removes what the retention deleted
		if err != nil {
			t.Fatal(err)
		}
		if first := j.First("bank"); first != s.First("bank") {
			t.Errorf("the restored log begins at %d, not at %d", first, s.First("bank"))
		}
		sameHistory(t, j, s.Journal)
		if err := j.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if got := dump(t, back.CrashClone(0).Storage()); got != want {
			t.Error("the restored bytes are others")
		}
	}
	// A file that says that it is complete and begins where no retention has ended.
	forged := journaltest.NewMemory()
	piece := filepath.Join(t.TempDir(), "piece"+Extension)
	err = Create(piece, func(f *os.File) error {
		b := builder{manifest: newManifest()}
		if err := b.begin(f); err != nil {
			return err
		}
		end := Log{Name: "orders"}
		err := s.Batches(t.Context(), "orders", journal.BatchRange{After: 3}, func(block journal.Block) error {
			batch, err := format.ReadBatch(block.Data, nil)
			if err == nil {
				err = b.batch(&end, &batch, block.Data)
			}
			return err
		})
		b.manifest.Logs = append(b.manifest.Logs, end)
		if err == nil {
			_, err = b.finish()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), forged.Storage(), []string{piece}, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	j, err := commitlog.Open(t.Context(), forged.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Damage("orders"); journal.KindOf(err) != journal.KindCorrupt ||
		!strings.Contains(err.Error(), "batches are missing") {
		t.Errorf("a log without its beginning is opened: %v", err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Error(err)
	}
	retain(m.log("bank").Position + 1)
	s.add(40)
	retain(s.Head("bank") + 1)
	for _, since := range []*Manifest{second, m} {
		if _, err := Write(t.Context(), new(bytes.Buffer), s, Options{Since: since}); journal.KindOf(
			err) != journal.KindInvalid || !strings.Contains(err.Error(), "make a complete backup") {
			t.Errorf("continuing what is gone: %v", err)
		}
	}
}

// What does not belong together is refused by name.
func TestMixedBackupsAreRefused(t *testing.T) {
	s, other := newSource(t), newSource(t)
	mine, theirs := t.TempDir(), t.TempDir()
	s.add(20)
	full, m := s.backup(mine)
	s.add(5)
	second, _ := s.backup(mine)
	s.add(5)
	third, _ := s.backup(mine)
	other.add(33)
	foreign, _ := other.backup(theirs)
	other.add(1)
	foreign2, _ := other.backup(theirs)

	for _, c := range []struct {
		files []string
		says  string
	}{
		{[]string{second, third}, "none of the files is a complete backup"},
		{[]string{full, third}, "000003.bulkhead does not continue"},
		{[]string{full, second, foreign}, "begin at the same place"},
		{[]string{full, second, foreign2}, "000002.bulkhead does not continue"},
	} {
		if _, err := Files(c.files...); journal.KindOf(err) != journal.KindInvalid ||
			!strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.files, err)
		}
	}
	if got, err := Files(third, full, second); err != nil || got[0] != full || got[2] != third {
		t.Errorf("files in any order: %v, %v", got, err)
	}
	if _, err := Restore(t.Context(), journaltest.NewMemory().Storage(), []string{full, foreign2},
		RestoreOptions{}); journal.KindOf(err) != journal.KindInvalid || !strings.Contains(err.Error(), foreign2) {
		t.Errorf("a file of another journal: %v", err)
	}
	if _, err := Write(t.Context(), new(bytes.Buffer), other, Options{Since: m}); journal.KindOf(
		err) != journal.KindInvalid || !strings.Contains(err.Error(), "another journal") {
		t.Errorf("continuing a backup of another journal: %v", err)
	}
	// A journal that was set back does not continue the backup of what it was.
	back := journaltest.NewMemory()
	if _, err := Restore(t.Context(), back.Storage(), []string{full}, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	j, err := commitlog.Open(t.Context(), back.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close(t.Context())
	latest, err := ManifestOf(third)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Write(t.Context(), new(bytes.Buffer), j, Options{Since: latest}); journal.KindOf(
		err) != journal.KindInvalid || !strings.Contains(err.Error(), "does not come as far") {
		t.Errorf("an older copy under a newer backup: %v", err)
	}
}

// A file that was cut off anywhere, or has a flipped bit anywhere, is found.
func TestDamagedFilesAreFound(t *testing.T) {
	s := newSource(t)
	s.add(6)
	var file bytes.Buffer
	if _, err := Write(t.Context(), &file, s, withModules()); err != nil {
		t.Fatal(err)
	}
	whole := file.Bytes()
	for n := range whole {
		if _, err := Read(bytes.NewReader(whole[:n]), Handler{}); journal.KindOf(err) != journal.KindCorrupt {
			t.Fatalf("cut off at byte %d of %d: %v", n, len(whole), err)
		}
		if _, err := ReadManifest(bytes.NewReader(whole[:n]), int64(n)); journal.KindOf(err) != journal.KindCorrupt {
			t.Fatalf("the manifest of a file cut off at byte %d of %d: %v", n, len(whole), err)
		}
		bad := bytes.Clone(whole)
		bad[n] ^= 1 << (n % 8)
		if _, err := Read(bytes.NewReader(bad), Handler{}); journal.KindOf(err) != journal.KindCorrupt {
			t.Fatalf("a flipped bit in byte %d of %d: %v", n, len(whole), err)
		}
	}
	if _, err := Read(bytes.NewReader(append(bytes.Clone(whole), 0)),
		Handler{}); journal.KindOf(err) != journal.KindCorrupt {
		t.Errorf("a byte behind the end: %v", err)
	}
	if _, err := Read(bytes.NewReader(whole), Handler{}); err != nil {
		t.Error(err)
	}
	// The file is named.
	name := filepath.Join(t.TempDir(), "torn.bulkhead")
	if err := os.WriteFile(name, whole[:len(whole)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Restore(t.Context(), journaltest.NewMemory().Storage(), []string{name}, RestoreOptions{})
	if journal.KindOf(err) != journal.KindCorrupt || !strings.Contains(err.Error(), name) {
		t.Errorf("restoring a torn file: %v", err)
	}
}

// A piece of a log is imported where it belongs, and only there; importing it
// again changes nothing.
func TestPiecesAreImported(t *testing.T) {
	s := newSource(t)
	s.add(60)
	dir := t.TempDir()
	piece := func(name string, after, upTo journal.Position) string {
		name = filepath.Join(dir, name)
		err := Create(name, func(f *os.File) error {
			_, err := WritePiece(t.Context(), f, s, "bank", after, upTo, Options{})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	first, second := piece("first", 0, 12), piece("second", 10, 0)
	late := piece("late", 20, 0)
	m := journaltest.NewMemory()
	refused := func(name, says string) {
		t.Helper()
		_, err := Import(t.Context(), m.Storage(), name, RestoreOptions{})
		if journal.KindOf(err) != journal.KindInvalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused(late, "import what comes first")
	for range 2 {
		if _, err := Import(t.Context(), m.Storage(), first, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	refused(late, "does not fit behind")
	if _, err := Import(t.Context(), m.Storage(), second, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(t.Context(), m.Storage(), first, RestoreOptions{}); err != nil {
		t.Error(err)
	}
	var want strings.Builder
	for line := range strings.Lines(dump(t, s.disk.Storage())) {
		if strings.HasPrefix(line, "bank ") {
			want.WriteString(line)
		}
	}
	if dump(t, m.Storage()) != want.String() {
		t.Error("the imported log is another one")
	}
	mustVerify(t, m)
	other := newSource(t)
	other.n = 1
	other.add(10)
	err := Create(filepath.Join(dir, "other"), func(f *os.File) error {
		_, err := WritePiece(t.Context(), f, other, "bank", 0, 0, Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	refused(filepath.Join(dir, "other"), "another journal")
	if _, err := Files(first); journal.KindOf(err) != journal.KindInvalid {
		t.Errorf("a piece is taken for a backup: %v", err)
	}
}

// For n = 1, 2, 3 … the n-th operation of the storage fails: a backup fails and does
// not pass for one; a restore or an import fails, and what it left is begun again or
// continued.
func TestEachOperationFails(t *testing.T) {
	s := newSource(t)
	s.add(30)
	want := dump(t, s.disk.Storage())
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	for n := 1; ; n++ {
		s.disk.FailAt(n)
		err := Create(full, func(f *os.File) error { _, err := Write(t.Context(), f, s, withModules()); return err })
		s.disk.FailAt(0)
		if err == nil {
			break
		}
		if left, _ := os.ReadDir(dir); !errors.Is(err, journaltest.ErrInjected) || len(left) > 0 {
			t.Fatalf("n=%d: %v leaves %v", n, err, left)
		}
	}
	for n := 1; ; n++ {
		m := journaltest.NewMemory()
		m.FailAt(n)
		_, err := Restore(t.Context(), m.Storage(), []string{full}, RestoreOptions{})
		if err == nil {
			m.FailAt(0)
			if dump(t, m.Storage()) != want {
				t.Error("the restored bytes are others")
			}
			break
		}
		if !errors.Is(err, journaltest.ErrInjected) {
			t.Fatalf("n=%d: %v", n, err)
		}
	}
	for n := 1; ; n++ {
		m := journaltest.NewMemory()
		m.FailAt(n)
		_, err := Import(t.Context(), m.Storage(), full, RestoreOptions{})
		failed := err != nil
		if failed && !errors.Is(err, journaltest.ErrInjected) {
			t.Fatalf("n=%d: %v", n, err)
		}
		m = m.CrashClone(0)
		if _, err := Import(t.Context(), m.Storage(), full, RestoreOptions{}); err != nil ||
			dump(t, m.Storage()) != want {
			t.Fatalf("n=%d: importing again: %v", n, err)
		}
		if !failed {
			break
		}
	}
}

// failAfter takes so many bytes and then no more.
type failAfter struct{ left int }

func (f *failAfter) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, journaltest.ErrInjected
	}
	return len(b), nil
}

// A target that is full ends a backup, wherever that happens.
func TestAFullTargetEndsABackup(t *testing.T) {
	s := newSource(t)
	s.add(8)
	for room := 0; ; room += 37 {
		_, err := Write(t.Context(), &failAfter{room}, s, withModules())
		if err == nil {
			return
		}
		if !errors.Is(err, journaltest.ErrInjected) {
			t.Fatalf("room for %d bytes: %v", room, err)
		}
	}
}

// Damage in the log is not copied into a backup as if it were none.
func TestADamagedLogIsNotBackedUp(t *testing.T) {
	s := newSource(t)
	s.add(20)
	s.disk.Corrupt("bank", 3, rand.IntN(8*200))
	_, err := Write(t.Context(), new(bytes.Buffer), s, Options{})
	if journal.KindOf(err) != journal.KindCorrupt || !strings.Contains(err.Error(), "batch 4 at position") {
		t.Errorf("a backup of a damaged log: %v", err)
	}
}

// Whatever bytes a file has, it is read whole or refused; nothing is set aside for
// what is only claimed.
func FuzzRead(f *testing.F) {
	m := journaltest.NewMemory()
	j, err := commitlog.Open(context.Background(), m.Storage(), commitlog.Options{})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := journaltest.Append(j, journaltest.Commit("bank", "k", 0, "c", 1)); err != nil {
		f.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := Write(context.Background(), &file, j, withModules()); err != nil {
		f.Fatal(err)
	}
	if err := j.Close(context.Background()); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes(), uint8(0))
	f.Add(file.Bytes()[:100], uint8(1))
	f.Add([]byte(`{"id":"x","logs":[{"name":"bank","batch":1}]}`), uint8(recordEnd))
	f.Add([]byte{}, uint8(recordModule))
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		// As a file, and as the content of one record with a right checksum, where a
		// forger would get to.
		var forged bytes.Buffer
		w, _ := newWriter(&forged)
		_ = w.describe(recordHead, Head{ID: "x"})
		_ = w.record(kind, data, nil)
		for _, b := range [][]byte{data, forged.Bytes()} {
			if _, err := Read(bytes.NewReader(b), Handler{}); err != nil && journal.KindOf(err) != journal.KindCorrupt {
				t.Errorf("%v", err)
			}
			if _, err := ReadManifest(bytes.NewReader(b), int64(len(b))); err != nil &&
				journal.KindOf(err) == journal.KindInternal {
				t.Errorf("%v", err)
			}
			_, _ = ReadHead(bytes.NewReader(b))
		}
		_, _ = ParseManifest(data)
	})
}

// Events that a retention has kept apart are in backups, as what else it has left, and can be read where one is
// restored.
func TestBackupsOfKeptEvents(t *testing.T) {
	s := newSourceWith(t, commitlog.Options{MaxBatchBytes: 600, AnswerWindow: time.Nanosecond})
	s.add(60)
	read := func(j *commitlog.Journal) map[string]string {
		all := map[string]string{}
		for id := range s.at {
			log, key, _ := strings.Cut(id, "/")
			_, err := j.Load(t.Context(), journal.LogName(log), key, 0, func(e *journal.Event) error {
				all[id] += fmt.Sprintf("%+v\n", *e)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	before := read(s.Journal)
	r, err := s.Retain(t.Context(), "bank", journal.Retention{Before: 20})
	if err != nil || r.Kept == 0 || r.Batches == 0 || r.Held > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := read(s.Journal); !maps.Equal(got, before) {
		t.Errorf("kept are\n%v\nnot\n%v", got, before)
	}
	dir := t.TempDir()
	s.backup(dir)
	s.add(4)
	s.backup(dir)
	want := read(s.Journal)
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	back := journaltest.NewMemory()
	if _, err := Restore(t.Context(), back.Storage(), files, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, back)
	j, err := commitlog.Open(t.Context(), back.Storage(), commitlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(j); !maps.Equal(got, want) {
		t.Errorf("restored there are\n%v\nnot\n%v", got, want)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Files that begin where a retention has let the log begin tell the kept events; those that have the deleted batches
// have their commits, and so do not.
func TestKeptEventsInFiles(t *testing.T) {
	s := newSourceWith(t, commitlog.Options{MaxBatchBytes: 600, AnswerWindow: time.Nanosecond})
	s.add(60)
	all := t.TempDir() // everything, and later retentions
	s.backup(all)
	retain := func(before journal.Position) {
		t.Helper()
		r, err := s.Retain(t.Context(), "bank", journal.Retention{Before: before})
		if err != nil || r.Kept == 0 || r.Batches == 0 || r.Held > 0 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	kept := func(j *commitlog.Journal) (lines []string) {
		err := j.Kept(t.Context(), "bank", func(e *journal.Event) error {
			lines = append(lines, fmt.Sprintf("%+v", *e))
			return nil
		})
		if err != nil || len(lines) == 0 {
			t.Fatal(len(lines), err)
		}
		return lines
	}
	in := func(dir string, log journal.LogName) (lines []string) {
		files, err := Files(dir)
		if err == nil {
			err = Kept(t.Context(), files, log, func(e *journal.Event) error {
				lines = append(lines, fmt.Sprintf("%+v", *e))
				return nil
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		return lines
	}
	retain(15)
	want := kept(s.Journal)
	later := t.TempDir()
	s.backup(later)
	s.add(6)
	retain(25)
	if len(kept(s.Journal)) <= len(want) {
		t.Fatal("the second retention keeps no more")
	}
	s.backup(all)
	s.backup(later)
	// The events that the second retention has kept are in the first file of these, as commits.
	if got := in(later, "bank"); !slices.Equal(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	for _, got := range [][]string{in(all, "bank"), in(later, "orders"), in(later, "none")} {
		if len(got) > 0 {
			t.Errorf("kept are %v", got)
		}
	}
	newest := t.TempDir()
	s.backup(newest)
	if got := in(newest, "bank"); !slices.Equal(got, kept(s.Journal)) {
		t.Errorf("got\n%v\nwant\n%v", got, kept(s.Journal))
	}
	files, err := Files(newest)
	if err != nil {
		t.Fatal(err)
	}
	theirs := errors.New("theirs")
	if err := Kept(t.Context(), files, "bank", func(*journal.Event) error { return theirs }); !errors.Is(err, theirs) ||
		journal.KindOf(err) == journal.KindCorrupt {
		t.Errorf("%v", err)
	}
}

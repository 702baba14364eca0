package archtest

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/internal/raced"
)

// threats is the checklist of what can happen to a journal, and the tests that show the required result. A
// row without tests is a promise that nothing checks.
var threats = []struct {
	fault, outcome string
	tests          []string // package directory and function
}{
	{"kill -9 at any instruction of append, index, snapshot, retention, backup, restore",
		"at open: every acknowledged commit whole, none half",
		[]string{
			"journal/storage TestKill9", "journal/badgerlog TestPowerCuts", "host/internal/crash TestKillNine",
			"journal/commitlog TestEachOperationFails", "journal/commitlog TestEachOperationFailsWithSnapshots",
			"journal/commitlog TestEachOperationOfRetentionFails", "journal/commitlog TestModel",
			"journal/storage TestModel",
			"journal/backup TestEachOperationFails",
		}},
	{"write or sync error (EIO, ENOSPC, EDQUOT), error on close",
		"journal closed, outcomes unknown, never retried on the same handle, never acknowledged",
		[]string{
			"journal/commitlog TestAFailedWriteIsTheEnd", "journal/commitlog TestAnErrorOfClosing",
			"journal/commitlog TestNoReceiptForAVoidState",
			"journal/badgerlog TestAFailedSync", "journal/badgerlog TestAFailedSyncOfACollection",
			"journal/storage TestAFullFileSystem",
			"host TestAFullDisk", "host TestAWriteMeetsAFullDisk", "host TestAFailedJournalIsOpenedAgain",
			"host TestLinearizable", "host/internal/engine TestEveryOperationFailsOnce",
		}},
	{"torn tail, bit flip, truncated or missing file, files of another journal mixed in, older backup restored over " +
		"newer",
		"found, named, healthy rest readable, never served as an event",
		[]string{
			"journal/storage TestDamagedFiles", "journal/storage TestDamageOfTheIndexIsNoticedByNobody",
			"journal/storage TestFilesOfAnotherJournal", "journal/storage TestAnOlderLogOverANewerOne",
			"journal/storage TestFilesThatWereNeverWritten", "journal/commitlog TestFlippedBitsAreFound",
			"journal/commitlog TestALogThatLostItsEndIsRefused",
			"journal/commitlog TestAHoleInTheLogIsFound", "journal/verify TestVerifyFinds",
			"host TestADamagedServiceIsRefused",
		}},
	{"clock backwards, clock a year ahead",
		"commit times never decrease; positions unaffected",
		[]string{"journal/commitlog TestClockGoesBackwards"}},
	{"two hosts on one directory",
		"second refused with a clear error",
		[]string{"journal/storage TestASecondOpenIsRefused", "host TestASecondHostOnTheSameDirectoryIsRefused",
			"host TestWhyAJournalDoesNotOpen"}},
	{"disk slow (sync of 1 s)",
		"latency rises, memory does not: back-pressure",
		[]string{"journal/commitlog TestASlowDisk", "journal/commitlog TestBackPressure"}},
}

// rows parses the checklist.
const rows = `
kill -9 at any instruction of append, index, snapshot, retention, backup, restore | at open: every acknowledged commit whole, none half
write or sync error (EIO, ENOSPC, EDQUOT), error on close | journal closed, outcomes unknown, never retried on the same handle, never acknowledged
torn tail, bit flip, truncated or missing file, files of another journal mixed in, older backup restored over newer | found, named, healthy rest readable, never served as an event
clock backwards, clock a year ahead | commit times never decrease; positions unaffected
two hosts on one directory | second refused with a clear error
disk slow (sync of 1 s) | latency rises, memory does not: back-pressure
`

func TestEveryThreatToTheJournalHasItsTests(t *testing.T) {
	raced.Skip(t, "it has one goroutine")
	have := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				have[path.Clean(s.dir)+" "+f.Name.Name] = true
			}
		}
	}
	var listed []string
	for _, threat := range threats {
		listed = append(listed, threat.fault+" | "+threat.outcome)
		t.Run(threat.fault, func(t *testing.T) {
			if len(threat.tests) == 0 {
				t.Error("no test shows the outcome")
			}
			for _, test := range threat.tests {
				if !have[test] {
					t.Errorf("there is no %s", test)
				}
			}
		})
	}
	if want := strings.Split(strings.TrimSpace(rows), "\n"); !slices.Equal(listed, want) {
		t.Errorf("the rows are %q, and should be %q", listed, want)
	}
}

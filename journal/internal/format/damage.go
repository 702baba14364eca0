package format

import "github.com/bulkhead-wasm/bulkhead/journal"

// IndexDamage is an error that says that the index, not the log, is not what was written.
type IndexDamage struct{ Err error }

func (d *IndexDamage) Error() string { return "the index is damaged: " + d.Err.Error() }
func (d *IndexDamage) Unwrap() error { return d.Err }

// DamagedIndex is an error that says what is damaged in the index of a log; no log means the index as a whole.
func DamagedIndex(log journal.LogName, detail string) error {
	return &IndexDamage{journal.Errorf(journal.KindCorrupt, "open", log, "%s", detail)}
}

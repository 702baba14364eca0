package catalog

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// maxVersion bounds the recorded version of a module, in bytes.
const maxVersion = 128

// ShortVersion is what is recorded of a module's version, which may be of any length: its beginning.
func ShortVersion(version string) string {
	if len(version) <= maxVersion {
		return version
	}
	return strings.ToValidUTF8(version[:maxVersion], "") + "…"
}

// History reads the deployments of a service, the newest first: at most limit of those with a number below
// before (0: all). more is true if there are earlier ones. It takes time in proportion to the number of records of the
// service, and memory in proportion to limit. It does not say whether modules are still stored.
func (c *Catalog) History(
	ctx context.Context, name service.Name, before service.Version, limit int,
) (found []service.DeploymentEntry, more bool, err error) {
	var f historyFold
	newest := func(e *service.DeploymentEntry) {
		if before > 0 && e.Number >= before {
			return
		}
		if len(found) == limit {
			copy(found, found[1:])
			found, more = found[:limit-1], true
		}
		found = append(found, *e)
	}
	_, err = c.journal.Load(ctx, Log, string(name), 0, func(e *journal.Event) error {
		done, err := f.next(e)
		if done != nil {
			newest(done)
		}
		return err
	})
	if err != nil {
		return nil, false, service.FromJournal{Use: service.JournalRead, Op: "deployments", Service: name,
			Otherwise: "the history of the service's deployments cannot be read at present"}.Of(err)
	}
	if last := f.last; last != nil {
		last.Current = last.Stopped.IsZero()
		newest(last)
	}
	slices.Reverse(found)
	return found, more, nil
}

// historyFold makes entries of a service's records. A record with the spec of the one before it only adds what the
// host has learnt about the module since, so both are one entry.
type historyFold struct{ last *service.DeploymentEntry }

// next applies one record, and returns the entry that it has completed, or nil.
func (f *historyFold) next(e *journal.Event) (done *service.DeploymentEntry, err error) {
	if e.Type == eventDeleted {
		if f.last != nil && f.last.Stopped.IsZero() {
			f.last.Stopped = timeOf(e)
		}
		return nil, nil
	}
	var d deployment
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return nil, service.Errorf(service.KindInternal, "the deployment of %s at position %d cannot be read: %w",
			e.Key, e.Position, err)
	}
	if f.last != nil && f.last.Stopped.IsZero() && f.last.Spec == d.Spec {
		f.last.ModuleVersion, f.last.StateSchema = d.ModuleVersion, d.StateSchema
		return nil, nil
	}
	done = f.last
	f.last = &service.DeploymentEntry{Number: e.Version, Time: timeOf(e), Spec: d.Spec, ModuleVersion: d.ModuleVersion,
		StateSchema: d.StateSchema, Verification: d.Verification}
	return done, nil
}

// timeOf is when a record was made.
func timeOf(e *journal.Event) time.Time { return time.Unix(0, int64(e.CommandTime)).UTC() }

// Entry is the entry of a service's history with a number. If number is 0, it is the newest entry whose module, limits
// or settings differ from those of the last one. KindNotFound if there is none.
func (c *Catalog) Entry(
	ctx context.Context, name service.Name, number service.Version,
) (service.DeploymentEntry, error) {
	if number > 0 {
		found, _, err := c.History(ctx, name, number+1, 1)
		if err == nil && (len(found) == 0 || found[0].Number != number) {
			err = &service.Error{Op: "rollback", Service: name, Kind: service.KindNotFound,
				Message: "the service's history has no deployment with this number; the list of its deployments has " +
					"the numbers"}
		}
		if err != nil {
			return service.DeploymentEntry{}, err
		}
		return found[0], nil
	}
	// Consecutive entries differ, unless the service was stopped in between.
	var last *service.DeploymentEntry
	for before := service.Version(0); ; {
		found, more, err := c.History(ctx, name, before, entryPage)
		if err != nil {
			return service.DeploymentEntry{}, err
		}
		for i := range found {
			if last == nil {
				last = &found[i]
			}
			if found[i].Spec != last.Spec {
				return found[i], nil
			}
			before = found[i].Number
		}
		if !more {
			return service.DeploymentEntry{}, &service.Error{Op: "rollback", Service: name, Kind: service.KindNotFound,
				Message: "the service has had no other module, limits or settings before the present ones"}
		}
	}
}

// entryPage is how many entries Entry looks at in one reading.
const entryPage = 100

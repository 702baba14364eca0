package commitlog

import (
	"context"
	"time"

	"github.com/bulkhead-wasm/bulkhead/journal"
)

// indexer writes the index after the log, and snapshots after the entries of their events. A failed update ends the
// journal like a failed append, as the overlay must not grow without bound; the next Open completes the index.
type indexer struct {
	index   journal.IndexStore
	overlay *overlay
	answers *answers
	cuts    *typeCuts
	types   *typeCounter
	in      <-chan *group
}

// run returns when in is closed and empty.
func (x *indexer) run() {
	defer x.cuts.end()
	broken := false
	var groups []*group
	var pairs []journal.Pair
	for open := true; open; {
		var g *group
		select {
		case g, open = <-x.in:
		case <-x.overlay.indexWake:
		}
		if broken {
			continue // its commits stay in the overlay, where readers find them
		}
		var err error
		groups, pairs, err = x.update(groups[:0], pairs[:0], g)
		if err == nil {
			err = x.cutTypes()
		}
		if err != nil {
			broken = true
			x.overlay.fail(nil, &journal.Error{Op: "index", Kind: failureKind(err), Err: err})
		}
		clear(pairs)
		clear(groups)
	}
}

// update writes to the index what belongs to g, to the groups that gather after it, and the snapshots that are ready. g
// is nil if there are only snapshots. It fills groups and pairs, and returns them for reuse.
func (x *indexer) update(
	groups []*group, pairs []journal.Pair, g *group,
) (_ []*group, _ []journal.Pair, err error) {
	for g != nil {
		if g.err == nil {
			groups = append(groups, g)
			if pairs, err = indexGroup(pairs, g, x.types); err != nil {
				return groups, pairs, err
			}
		}
		g = x.along(len(pairs))
	}
	pairs, snapshots := x.overlay.takeSnapshots(pairs)
	pairs, days := x.answers.of(pairs, groups)
	pairs = x.types.take(x.overlay.takeCounts(pairs, groups))
	if len(pairs) == 0 {
		return groups, pairs, nil
	}
	pairs = sortPairs(pairs)
	start := time.Now()
	if err := x.index.Update(context.Background(), pairs); err != nil {
		return groups, pairs, err
	}
	took := time.Since(start)
	x.answers.set(days) // before the overlay releases what is in them
	x.overlay.updated(snapshots, took)
	for _, g := range groups {
		x.overlay.releaseIndexed(g)
	}
	return groups, pairs, x.answers.end(context.Background())
}

// cutTypes carries out the requests of retentions. An error means that writing the index failed.
func (x *indexer) cutTypes() (failed error) {
	for _, c := range x.cuts.take() {
		wanted, err := c.carryOut(x.index, x.types)
		c.done <- typesCut{wanted, err}
		if err != nil && journal.KindOf(err) != journal.KindCorrupt {
			failed = err
		}
	}
	return failed
}

// along returns the next group for the same update, which has so many entries already, or nil if none is to be added.
// Adding many sorted entries to a tree costs a fraction of adding them one by one, and until then the overlay answers
// for them. So it waits while commits are on their way to the disk, and otherwise does not: an idle journal has a
// complete index, without a timer.
func (x *indexer) along(entries int) *group {
	if entries >= pairsAtOnce {
		return nil
	}
	select {
	case g := <-x.in: // nil if the channel is closed
		return g
	default:
	}
	if !x.overlay.gathers() {
		return nil
	}
	return <-x.in // a group comes, void or not, or the channel is closed
}

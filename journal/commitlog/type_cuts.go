package commitlog

import (
	"sync"

	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/internal/format"
)

// typeCut is what a retention asks the indexer to take out of a log's catalogue. It is
// done all at once, or not at all.
type typeCut struct {
	log  *logState
	cut  format.Cut
	gone map[string]uint64 // events of each type that are deleted
	// firsts are the first events behind the cut of those types that lose some and have
	// others.
	firsts map[string]journal.Position
	done   chan typesCut // of capacity 1
}

// typesCut is the answer. wanted are the types that lack their first event: some
// events of them stand behind those that were looked at.
type typesCut struct {
	wanted []string
	err    error
}

// after is what the cut makes of the entry of a type; a count of 0 says that nothing is left
// of it. known is false if the first event that is kept is not.
func (c *typeCut) after(name string, e format.TypeEntry) (_ format.TypeEntry, known bool, err error) {
	gone := c.gone[name]
	if gone > e.Count || gone > 0 && e.First >= c.cut.Position {
		return e, false, damagedTypes(c.log.name, "the event catalogue has other events than the log")
	}
	e.From, e.Count = c.cut.Sequence, e.Count-gone
	if gone == 0 || e.Count == 0 {
		return e, true, nil
	}
	if e.Count == 1 {
		e.First = e.Last
		return e, true, nil
	}
	e.First, known = c.firsts[name]
	return e, known, nil
}

// carryOut does what a retention asks for. The indexer calls it, between two updates.
func (c *typeCut) carryOut(index journal.IndexStore, t *typeCounter) (wanted []string, err error) {
	var pairs []journal.Pair
	var gone [][]byte
	err = eachTypeEntry(t.ctx, index, c.log.name, func(name string, e format.TypeEntry) error {
		e, known, err := c.after(name, e)
		switch {
		case err != nil:
			return err
		case !known:
			wanted = append(wanted, name)
		case e.Count == 0:
			gone = append(gone, format.TypeKey(c.log.name, name))
		default:
			pairs = append(pairs, journal.Pair{Key: format.TypeKey(c.log.name, name),
				Value: format.EncodeTypeEntry(&e)})
		}
		return nil
	})
	if err != nil || len(wanted) > 0 {
		return wanted, err
	}
	t.forget()
	c.log.counted = c.cut.Sequence
	if err := index.Update(t.ctx, pairs); err != nil {
		return nil, err
	}
	return nil, index.Delete(t.ctx, gone)
}

// typeCuts are those that the indexer has been asked for.
type typeCuts struct {
	mu    sync.Mutex
	asked []*typeCut
	ended bool // no more are taken
}

// ask hands a cut in; its answer comes by done.
func (t *typeCuts) ask(c *typeCut) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return errClosedIndex(c.log.name)
	}
	t.asked = append(t.asked, c)
	return nil
}

// take returns what was asked since the last time.
func (t *typeCuts) take() []*typeCut {
	t.mu.Lock()
	defer t.mu.Unlock()
	asked := t.asked
	t.asked = nil
	return asked
}

// end refuses those that ask too late.
func (t *typeCuts) end() {
	t.mu.Lock()
	asked := t.asked
	t.asked, t.ended = nil, true
	t.mu.Unlock()
	for _, c := range asked {
		c.done <- typesCut{err: errClosedIndex(c.log.name)}
	}
}

func errClosedIndex(log journal.LogName) error {
	return journal.Errorf(journal.KindClosed, "retain", log, "the journal was closed; the event catalogue is "+
		"completed when it is next opened")
}

// askTypeCut asks the indexer to carry out c, and waits for the answer.
func (j *Journal) askTypeCut(c *typeCut) ([]string, error) {
	c.done = make(chan typesCut, 1)
	if err := j.cuts.ask(c); err != nil {
		return nil, err
	}
	j.overlay.wakeIndexer()
	select {
	case a := <-c.done:
		return a.wanted, a.err
	case <-j.overlay.failed:
		return nil, &journal.Error{Op: "retain", Log: c.log.name, Kind: journal.KindFailed, Err: j.Err()}
	}
}

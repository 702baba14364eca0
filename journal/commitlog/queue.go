package commitlog

// queue has the commits that were handed in and that the committer has not taken yet, by log. It also bounds what is
// in the overlay. It is guarded by overlay.mu.
type queue struct {
	maxCommits int   // in the overlay
	maxBytes   int64 // of their records
	limits     groupLimits

	turns   []*logQueue   // those with commits, in the order in which they come to their turns
	queued  int           // commits in all of them
	commits int           // in the overlay
	bytes   int64         // of their records
	room    chan struct{} // closed and replaced when commits or bytes went down
}

// groupLimits bound what one append of the storage writes.
type groupLimits struct {
	commits    int
	bytes      int
	batchBytes int
}

// logQueue has the commits of one log.
type logQueue struct {
	waiting []*pending // handed in, not yet taken by the committer
	commits int        // in the overlay
	pending int64      // bytes of their records
	credit  int        // bytes that it may hand in before others come to their turn
}

// newQueue returns an empty queue. The options have their defaults.
func newQueue(o *Options) queue {
	return queue{maxCommits: o.MaxPendingCommits, maxBytes: o.MaxPendingBytes, room: make(chan struct{}),
		limits: groupLimits{o.MaxGroupCommits, o.MaxGroupBytes, o.MaxBatchBytes}}
}

// hasRoom reports whether size bytes may be handed in. A log that has only a small
// share of what is pending gets in even if others have used up all room, so that a
// flood of theirs does not keep it out. One commit always may if its log has no other.
// l is nil for a log that has none.
func (q *queue) hasRoom(l *logQueue, size int64) bool {
	const share = 64
	if q.commits < q.maxCommits && q.bytes+size <= q.maxBytes {
		return true
	}
	return l == nil || l.commits == 0 || l.commits < q.maxCommits/share && l.pending+size <= q.maxBytes/share
}

// take takes room for commits of a log, or gives it back.
func (q *queue) take(l *logQueue, commits int, bytes int64) {
	q.commits += commits
	q.bytes += bytes
	l.commits += commits
	l.pending += bytes
}

// makeRoom wakes those who wait for room.
func (q *queue) makeRoom() {
	close(q.room)
	q.room = make(chan struct{})
}

// push hands a commit in, for which room was taken.
func (q *queue) push(l *logQueue, p *pending) {
	if len(l.waiting) == 0 {
		q.turns = append(q.turns, l)
	}
	l.waiting = append(l.waiting, p)
	q.queued++
}

// fill takes from the queues what fits into one group. Logs take turns by bytes
// (deficit round robin; Shreedhar and Varghese, 1995): a turn adds a batch's worth of
// bytes to what a log may hand in, and a commit that is bigger waits until its log has
// been given enough. So all get on however much one has handed in, and small commits
// do not wait for the write of a big one of another log that has had its share.
func (q *queue) fill(g *group) {
	for full, passed := false, 0; !full && len(q.turns) > 0 && (len(g.commits) == 0 || passed < len(q.turns)); {
		l := q.turns[0]
		var taken int
		taken, full = q.takeTurn(g, l)
		if full && taken == 0 {
			break // it comes first in the next group
		}
		if passed++; taken > 0 {
			passed = 0
		}
		copy(q.turns, q.turns[1:])
		if q.turns[len(q.turns)-1] = l; len(l.waiting) == 0 {
			l.credit = 0
			q.turns[len(q.turns)-1] = nil
			q.turns = q.turns[:len(q.turns)-1]
		}
	}
	q.queued -= len(g.commits)
}

// takeTurn moves what a log may hand in from its queue into the group, unless that is
// full before. A log that is alone may hand in all it has.
func (q *queue) takeTurn(g *group, l *logQueue) (n int, full bool) {
	// What a big commit is short of is not more than it, so nothing gathers.
	l.credit += q.limits.batchBytes
	for alone := len(q.turns) == 1; n < len(l.waiting); n++ {
		size := l.waiting[n].size
		if full = len(g.commits)+n >= q.limits.commits || g.bytes > 0 && g.bytes+size > q.limits.bytes; full {
			l.credit = min(l.credit, q.limits.batchBytes+size)
			break
		}
		if size > l.credit && !alone {
			break
		}
		g.bytes += size
		l.credit = max(0, l.credit-size)
	}
	g.commits = append(g.commits, l.waiting[:n]...)
	clear(l.waiting[:n])
	if n == len(l.waiting) {
		l.waiting = l.waiting[:0]
	} else {
		l.waiting = l.waiting[n:]
	}
	return n, full
}

package commitlog

import (
	"slices"
	"testing"
)

func queueOf(t *testing.T, o Options) *queue {
	t.Helper()
	o = o.withDefaults()
	q := newQueue(&o)
	return &q
}

// handIn pushes commits of so many bytes each.
func (q *queue) handIn(l *logQueue, sizes ...int) {
	for _, size := range sizes {
		q.take(l, 1, int64(size))
		q.push(l, &pending{size: size})
	}
}

// group returns the sizes of the commits of the next group.
func (q *queue) group() (sizes []int) {
	g := &group{}
	q.fill(g)
	for _, p := range g.commits {
		sizes = append(sizes, p.size)
	}
	return sizes
}

func TestQueueGivesLogsTurnsByBytes(t *testing.T) {
	q := queueOf(t, Options{MaxBatchBytes: 100, MaxGroupBytes: 1000})
	var big, small logQueue
	q.handIn(&big, 250, 250)
	q.handIn(&small, 1, 2, 3)
	if got, want := q.group(), []int{1, 2, 3, 250, 250}; !slices.Equal(got, want) {
		t.Errorf("the group has %v, want %v: the small ones do not wait for the big ones of another log", got, want)
	}
	if q.queued != 0 || len(q.turns) != 0 {
		t.Errorf("%d commits and %d turns are left in an empty queue", q.queued, len(q.turns))
	}
}

func TestQueueKeepsTheOrderOfALog(t *testing.T) {
	q := queueOf(t, Options{MaxGroupCommits: 3})
	var l logQueue
	q.handIn(&l, 1, 2, 3, 4, 5)
	first, second := q.group(), q.group()
	if !slices.Equal(first, []int{1, 2, 3}) || !slices.Equal(second, []int{4, 5}) {
		t.Errorf("the groups have %v and %v", first, second)
	}
}

func TestQueueBoundsTheBytesOfAGroup(t *testing.T) {
	q := queueOf(t, Options{MaxBatchBytes: 1000, MaxGroupBytes: 100})
	var l logQueue
	q.handIn(&l, 500, 60, 60)
	for _, want := range [][]int{{500}, {60}, {60}, nil} { // one by itself may be larger
		if got := q.group(); !slices.Equal(got, want) {
			t.Errorf("the group has %v, want %v", got, want)
		}
	}
}

func TestQueueKeepsRoomForOthers(t *testing.T) {
	q := queueOf(t, Options{MaxPendingCommits: 640, MaxPendingBytes: 6400})
	var flood, few logQueue
	for range 640 {
		q.handIn(&flood, 10)
	}
	if q.hasRoom(&flood, 1) {
		t.Error("a log that has used up all room gets in")
	}
	if !q.hasRoom(nil, 10) || !q.hasRoom(&few, 1<<20) {
		t.Error("a log without commits does not get in")
	}
	q.handIn(&few, 10, 10)
	if !q.hasRoom(&few, 10) {
		t.Error("a log with a small share does not get in")
	}
	if q.hasRoom(&few, 81) {
		t.Error("a log gets in beyond its share")
	}
	room := q.room
	q.take(&flood, -640, -6400)
	q.makeRoom()
	select {
	case <-room:
	default:
		t.Error("those who wait for room are not told")
	}
	if !q.hasRoom(&flood, 1) {
		t.Error("there is no room after it was given back")
	}
}

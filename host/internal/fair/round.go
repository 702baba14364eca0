package fair

import "container/list"

// round is a queue whose turns go round: among accounts, and within an account among its members. The places
// of a member keep their order. The time of each operation does not depend on the length of the queue. The
// zero value is empty.
type round struct {
	accounts list.List // of *waiters with waiting places, in the order of their turns
	byName   map[string]*waiters
}

// waiters are the waiting places of one account, or of one of its members.
type waiters struct {
	name   string
	place  *list.Element // in the list above
	inside list.List     // of *waiters, the members of an account; or of *Turn
	byName map[string]*waiters
}

// child finds the waiters of a name, or adds new ones at the end.
func child(l *list.List, byName *map[string]*waiters, name string) *waiters {
	if w := (*byName)[name]; w != nil {
		return w
	}
	if *byName == nil {
		*byName = map[string]*waiters{}
	}
	w := &waiters{name: name}
	w.place = l.PushBack(w)
	(*byName)[name] = w
	return w
}

func (r *round) push(p *Turn) {
	a := child(&r.accounts, &r.byName, p.account)
	m := child(&a.inside, &a.byName, p.member)
	p.place = m.inside.PushBack(p)
}

// pop removes and returns the place whose turn it is. The queue must not be empty.
func (r *round) pop() *Turn {
	a := r.accounts.Front().Value.(*waiters)
	m := a.inside.Front().Value.(*waiters)
	p := m.inside.Front().Value.(*Turn)
	a.inside.MoveToBack(m.place)
	r.accounts.MoveToBack(a.place)
	r.remove(p)
	return p
}

// remove removes a place that is in the queue.
func (r *round) remove(p *Turn) {
	a := r.byName[p.account]
	m := a.byName[p.member]
	m.inside.Remove(p.place)
	p.place = nil
	if m.inside.Len() == 0 {
		a.inside.Remove(m.place)
		delete(a.byName, m.name)
	}
	if a.inside.Len() == 0 {
		r.accounts.Remove(a.place)
		delete(r.byName, a.name)
	}
}

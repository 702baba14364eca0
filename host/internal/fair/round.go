package fair

import "container/list"

// round is a queue whose turns go round: among accounts, and within an account among
// its members; within a member they keep their order. Each operation takes the same time
// however many wait. The zero value is empty.
type round struct {
	accounts list.List // of *waiters, those that have somebody waiting, in the order of their turns
	byName   map[string]*waiters
}

// waiters are those of one account, or of one member of it, that wait.
type waiters struct {
	name   string
	place  *list.Element // in the list above
	inside list.List     // of *waiters, the members of an account; or of *Turn
	byName map[string]*waiters
}

// child finds the waiters of a name, or puts new ones at the end.
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

// pop takes out whose turn it is. There must be somebody.
func (r *round) pop() *Turn {
	a := r.accounts.Front().Value.(*waiters)
	m := a.inside.Front().Value.(*waiters)
	p := m.inside.Front().Value.(*Turn)
	a.inside.MoveToBack(m.place)
	r.accounts.MoveToBack(a.place)
	r.remove(p)
	return p
}

// remove takes somebody out who is in it.
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

package budget

import "fmt"

// Check returns what Take would, and takes nothing: for what is measured with [Account.Set]
// after it has happened.
func (a *Account) Check(r Resource, n int64) error {
	for at := a; at != nil; at = at.parent {
		if limit := at.limit[r].Load(); limit > 0 && at.Used(r) > limit-n {
			at.denied[r].Add(1)
			return at.refusal(r, n, false)
		}
	}
	return nil
}

// CheckShare is Check for those who are not to use up what others need: the last part of
// what the accounts above may hold, one of so many, is for those that hold no more than what
// is left of it. So however many hold all they can get, somebody who holds little goes on.
func (a *Account) CheckShare(r Resource, n, parts int64) error {
	if err := a.Check(r, n); err != nil {
		return err
	}
	for at := a.parent; at != nil; at = at.parent {
		limit := at.limit[r].Load()
		if left := limit - at.used[r].Load(); limit > 0 && left < limit/parts && a.used[r].Load() > left {
			at.denied[r].Add(1)
			e := at.refusal(r, n, false)
			e.Message = fmt.Sprintf("%s of %s has %d of %d in use, and what is left is for those that hold no more than that, which %s does; free some of it, or raise the limit", r, at.name, e.Used, e.Limit, a.name)
			return e
		}
	}
	return nil
}

// Set says that the account holds n of a resource, whatever the limits are: for what is
// measured, and not taken. Nobody takes that resource from the account, or from one below
// it, at the same time. After Close nothing is set.
func (a *Account) Set(r Resource, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	more := n - a.used[r].Load()
	if more == 0 {
		return
	}
	for at := a; at != nil; at = at.parent {
		at.used[r].Add(more)
	}
}

// Over is how much more of a resource is held than the limits of the account, and of those
// above it, allow: what is measured may have grown beyond what others left. 0 if nothing is.
func (a *Account) Over(r Resource) int64 {
	over := int64(0)
	for at := a; at != nil; at = at.parent {
		if limit := at.limit[r].Load(); limit > 0 {
			over = max(over, at.used[r].Load()-limit)
		}
	}
	return over
}

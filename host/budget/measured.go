package budget

import "fmt"

// Check returns the error that [Account.Take] would return, and takes nothing. It is for resources
// that are measured afterwards and recorded with [Account.Set].
func (a *Account) Check(r Resource, n int64) error {
	for at := a; at != nil; at = at.parent {
		if limit := at.limit[r].Load(); limit > 0 && at.Used(r) > limit-n {
			at.denied[r].Add(1)
			return at.refusal(r, n, false)
		}
	}
	return nil
}

// CheckShare is [Account.Check] for accounts that must leave something for others. Once less than
// 1/parts of the limit of an account above is left, only accounts that hold no more than what is
// left pass. So an account that holds little can go on, no matter how much the others hold.
func (a *Account) CheckShare(r Resource, n, parts int64) error {
	if err := a.Check(r, n); err != nil {
		return err
	}
	for at := a.parent; at != nil; at = at.parent {
		limit := at.limit[r].Load()
		if left := limit - at.used[r].Load(); limit > 0 && left < limit/parts && a.used[r].Load() > left {
			at.denied[r].Add(1)
			e := at.refusal(r, n, false)
			e.Message = fmt.Sprintf("%s of %s has %d of %d in use, and what is left is for those that hold no more "+
				"than that, which %s does; free some of it, or raise the limit", r, at.name, e.Used, e.Limit, a.name)
			return e
		}
	}
	return nil
}

// Set records that the account holds n of a resource, whatever the limits are. It is for resources
// that are measured, not taken: nobody may take the same resource from this account, or from one
// below it, concurrently. After Close it has no effect.
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

// Over returns by how much the use of a resource exceeds the limit of this account or of one above,
// whichever is more; 0 if none is exceeded. It happens with measured resources, which grow without
// asking.
func (a *Account) Over(r Resource) int64 {
	over := int64(0)
	for at := a; at != nil; at = at.parent {
		if limit := at.limit[r].Load(); limit > 0 {
			over = max(over, at.used[r].Load()-limit)
		}
	}
	return over
}

package budget

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

// Package lifecycletest tests every component against the contract of package lifecycle. Each component has a
// line in its table.
package lifecycletest

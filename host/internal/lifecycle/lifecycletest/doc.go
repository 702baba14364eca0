// Package lifecycletest holds everything that runs to the contract of package lifecycle. What begins to run has a line
// in its table.
package lifecycletest

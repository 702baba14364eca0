// Package stored reads what a storage says of logs and of their index, for a journal that runs and for one that is
// verified.
package stored

// Package logging bounds the cost of the log. With [Writer], no caller waits for the reader of the
// log. [Budget] limits each service to a number of bytes per second. Both count the lines that they
// drop, and report that number in the log itself.
package logging

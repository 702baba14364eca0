// Package evolution is one service in five versions, v1 to v5, over one log. README.md tells the story, and the test of
// this package runs it on a host.
package evolution

// Package logging keeps a log from costing more than it may: [Writer] lets nobody wait for whoever
// reads the log, and [Budget] gives each service so many bytes of it a second. What is dropped is
// counted, and told in the log itself.
package logging

//go:build race

package meteringtest

// underRace says that the race detector slows everything down.
const underRace = true

//go:build !race

package meteringtest

const underRace = false

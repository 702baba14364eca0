//go:build !race

package badgerlog

const underRace = false // see race_on.go

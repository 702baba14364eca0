package service

import (
	"reflect"
	"testing"
)

// Each counter of an engine that is replaced is added to what its service shows: none begins
// again with a deployment.
func TestEachCounterIsAdded(t *testing.T) {
	var sum Counters
	fields := reflect.ValueOf(&sum).Elem()
	for i := range fields.NumField() {
		fields.Field(i).SetUint(uint64(i + 1))
	}
	once := sum
	sum.Add(&once)
	for i := range fields.NumField() {
		if n, want := fields.Field(i).Uint(), uint64(2*(i+1)); n != want {
			t.Errorf("%s is %d, want %d", fields.Type().Field(i).Name, n, want)
		}
	}
}

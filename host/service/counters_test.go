package service

import (
	"reflect"
	"testing"
)

// The counters of a replaced engine are added to those of its service: none starts at zero after a
// deployment.
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

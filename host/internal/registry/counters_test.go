package registry

import (
	"reflect"
	"strings"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Each counter of an engine that is replaced is added to what its service shows: none begins
// again with a deployment. What is dropped of the log is counted outside of engines.
func TestSumHasEachCounter(t *testing.T) {
	var one service.Counters
	fields := reflect.ValueOf(&one).Elem()
	for i := range fields.NumField() {
		fields.Field(i).SetUint(uint64(i + 1))
	}
	got := reflect.ValueOf(sum(one, one))
	for i := range got.NumField() {
		name, want := got.Type().Field(i).Name, uint64(2*(i+1))
		if strings.HasPrefix(name, "Log") {
			want /= 2
		}
		if n := got.Field(i).Uint(); n != want {
			t.Errorf("%s is %d, want %d", name, n, want)
		}
	}
}

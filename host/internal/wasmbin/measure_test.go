package wasmbin_test

import (
	"reflect"
	"testing"

	"github.com/bulkhead-wasm/bulkhead/host/internal/testguest"
	"github.com/bulkhead-wasm/bulkhead/host/internal/wasmbin"
)

// Measure measures what the limits bound: with exactly these limits the module is accepted, and with
// any of them lower by one it is refused.
func TestMeasureIsWhatTheLimitsBound(t *testing.T) {
	i32 := testguest.Types(testguest.I32)
	module := testguest.Liar{With: func(b *testguest.Builder) {
		f := b.Func(testguest.Types(testguest.I32, testguest.I32), nil,
			testguest.Types(testguest.I32, testguest.I32, testguest.I32, testguest.I32),
			testguest.Block(testguest.Block(testguest.Block(testguest.Get(0), testguest.BrTable(0, 1, 2, 3)))))
		b.Func(nil, testguest.Types(testguest.I32, testguest.I32), nil, testguest.I32Const(1), testguest.I32Const(2))
		b.Func(i32, nil, i32)
		b.Table(7)
		b.Table(3)
		b.Element(f, f, f)
		b.Element(f)
		b.GlobalI32(1)
		b.GlobalI32(2)
		b.Custom("one", nil)
		b.Custom("a longer name than all others in this module", nil)
	}, Imports: []testguest.Import{{Module: "env", Name: "abort", Params: testguest.Types(testguest.I32, testguest.I32,
		testguest.I32, testguest.I32)}, {Module: "bulkhead_v1", Name: "fault",
		Params: testguest.Types(testguest.I32, testguest.I32)}}}.Bytes()
	read := func(l wasmbin.Limits) error {
		m, err := wasmbin.Parse(module, l)
		if err == nil {
			err = m.CheckCode(l)
		}
		return err
	}
	m, err := wasmbin.Parse(module, wasmbin.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	have, err := m.Measure()
	if err != nil {
		t.Fatal(err)
	}
	if err := read(have); err != nil {
		t.Errorf("with limits of what it has: %v", err)
	}
	fields := reflect.TypeOf(have).NumField()
	if all := have.Quantities(); len(all) != fields {
		t.Fatalf("%d quantities of %d", len(all), fields)
	}
	for i, q := range have.Times(3).Quantities() {
		if q.Value != 3*have.Quantities()[i].Value {
			t.Errorf("three times %d %s is %d", have.Quantities()[i].Value, q.Name, q.Value)
		}
	}
	for i := range fields {
		name := reflect.TypeOf(have).Field(i).Name
		low := have
		switch f := reflect.ValueOf(&low).Elem().Field(i); {
		case f.CanInt() && f.Int() > 1:
			f.SetInt(f.Int() - 1)
		case f.CanUint() && f.Uint() > 1:
			f.SetUint(f.Uint() - 1)
		default:
			t.Errorf("%s is %v, too little to tell", name, f)
			continue
		}
		if err := read(low); err == nil {
			t.Errorf("%s lower by one, and still it is read", name)
		}
	}
}

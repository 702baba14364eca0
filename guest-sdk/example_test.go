package guest_test

import (
	"encoding/json"
	"fmt"
	"log"
	"testing"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	guest "github.com/bulkhead-wasm/bulkhead/guest-sdk"
	"github.com/bulkhead-wasm/bulkhead/guest-sdk/guesttest"
)

// Light is the state of an entity.
type Light struct {
	On bool `json:"on"`
}

// Switched says what happened.
type Switched struct {
	On bool `json:"on"`
}

// Apply is the only code that changes state.
func (e Switched) Apply(l *Light) { l.On = e.On }

// Switch is a command.
type Switch struct {
	On bool `json:"on"`
}

// A service has a state, events that change it, and commands that decide which events happen.
// The package of a real service registers commands in init, and its main package is
// func main() {}.
func Example() {
	lights := guest.New[Light]("lights").Events(guest.Named(Switched{}, "switched"))
	guest.Command(lights, "switch", func(tx *guest.Tx[Light], c Switch) (Light, error) {
		if c.On == tx.State().On {
			return Light{}, guest.Reject("no_change", "the light is like that already")
		}
		tx.Emit(Switched{On: c.On})
		return *tx.State(), nil // which the event has changed
	})
	guest.Query(lights, "light", func(v *guest.View[Light], _ struct{}) (Light, error) { return *v.State(), nil })

	// What the host reads of the module when it is deployed.
	answer, err := guesttest.Native(lights).Exchange(abi.AppendDescribe(nil))
	if err != nil {
		log.Fatal(err)
	}
	response, _, err := abi.DecodeResponse(answer)
	if err != nil {
		log.Fatal(err)
	}
	body, err := abi.DecodeBody(&response)
	if err != nil {
		log.Fatal(err)
	}
	var manifest struct {
		Service  string
		Commands []struct{ Name string }
	}
	if err := json.Unmarshal(body, &manifest); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s has the command %s\n", manifest.Service, manifest.Commands[0].Name)
	// Output: lights has the command switch
}

// Dimmed is the newer form of Switched, which knows how bright the light is.
type Dimmed struct {
	Percent int `json:"percent"`
}

// Apply is the only code that changes state.
func (e Dimmed) Apply(l *Light) { l.On = e.Percent > 0 }

// SwitchedV1 is how the journal has "switched". It needs no Apply.
type SwitchedV1 struct {
	On bool `json:"on"`
}

// Events that are stored as "switched" are read as Dimmed. They stay in the journal as they are.
func ExampleUpcast() {
	lights := guest.New[Light]("lights").Events(guest.Named(Dimmed{}, "dimmed"))
	guest.Upcast(lights, "switched", func(old SwitchedV1) Dimmed {
		if old.On {
			return Dimmed{Percent: 100}
		}
		return Dimmed{}
	})
	guest.Query(lights, "light", func(v *guest.View[Light], _ struct{}) (Light, error) { return *v.State(), nil })

	guesttest.GivenJSON(&testing.T{}, lights, "hall", "switched", `{"on":true}`).
		State(func(l *Light) { fmt.Println("on:", l.On) })
	// Output: on: true
}

// LightV1 is the earlier form of the state.
type LightV1 struct {
	State string `json:"state"`
}

// Snapshots of the earlier form stand for events that were deleted. They are read as the present state.
func ExampleUpcastState() {
	lights := guest.New[Light]("lights").Events(guest.Named(Switched{}, "switched"))
	guest.UpcastState(lights, func(old LightV1) Light { return Light{On: old.State == "on"} }, 3)

	guesttest.GivenSnapshot(&testing.T{}, lights, "hall", 12, 3, `{"state":"on"}`).
		State(func(l *Light) { fmt.Println("on:", l.On) })
	// Output: on: true
}

// Lamp is a state that knows since when it is on.
type Lamp struct {
	On    bool      `json:"on"`
	Since time.Time `json:"since"`
}

// Turned need not say when it happened: the journal has the time of each event.
type Turned struct {
	guest.Informed[Lamp]
	On bool `json:"on"`
}

// ApplyWith is the only code that changes state.
func (e Turned) ApplyWith(l *Lamp, info guest.EventInfo) { l.On, l.Since = e.On, info.Time }

// An event that is applied with its time does not repeat it.
func ExampleInformedEvent() {
	lamps := guest.New[Lamp]("lamps").Events(guest.Named(Turned{}, "turned"))
	guest.Command(lamps, "turn", func(tx *guest.Tx[Lamp], c struct{ On bool }) (struct{}, error) {
		tx.Emit(Turned{On: c.On})
		return struct{}{}, nil
	})

	guesttest.Given(&testing.T{}, lamps, "hall").At(time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)).
		When("turn", struct{ On bool }{true}).Then(Turned{On: true}).
		State(func(l *Lamp) { fmt.Println("on since", l.Since) })
	// Output: on since 2026-07-01 12:00:00 +0000 UTC
}

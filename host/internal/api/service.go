package api

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// The media types of modules, of JSON, of JSON values a line each, of streams of
// events, of pages of CloudEvents, and of backups.
const (
	ContentWasm  = "application/wasm"
	ContentJSON  = "application/json"
	ContentLines = "application/x-ndjson"
	ContentSSE   = "text/event-stream"
	ContentBatch = "application/cloudevents-batch+json"
	// journal/FORMAT.md draws what is in it.
	ContentBackup = "application/vnd.bulkhead.backup"
)

// Manifest is a service's manifest, in the same JSON as in the module.
type Manifest abi.Manifest

// MarshalJSON implements json.Marshaler.
func (m Manifest) MarshalJSON() ([]byte, error) {
	return (*abi.Manifest)(&m).AppendJSON(nil), nil
}

// UnmarshalJSON implements json.Unmarshaler. It accepts a manifest that keeps the ABI's rules, and null.
func (m *Manifest) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	parsed, err := service.ParseManifest(b)
	if err != nil {
		return err
	}
	*m = Manifest(parsed)
	return nil
}

// Module is a module that passed verification and is stored.
type Module struct {
	Digest   service.Digest `json:"digest"`
	Size     int64          `json:"size"` // bytes
	Manifest Manifest       `json:"manifest"`
	Tariff   int            `json:"tariff"` // the version of the rules by which its fuel is charged
}

// ModuleOf converts m for the wire.
func ModuleOf(m service.Module) Module {
	return Module{Digest: m.Digest, Size: m.Size, Manifest: Manifest(m.Manifest), Tariff: m.Tariff}
}

// Value converts the module to the type of package service.
func (m *Module) Value() service.Module {
	return service.Module{Digest: m.Digest, Size: m.Size, Manifest: abi.Manifest(m.Manifest), Tariff: m.Tariff}
}

// Deployment is the body of PUT /v1/services/{service}: the stored module that the service shall run. Missing
// limits and settings have their defaults.
type Deployment struct {
	Module   service.Digest   `json:"module"`
	Limits   service.Limits   `json:"limits,omitzero"`
	Settings service.Settings `json:"settings,omitzero"`
	Verify
}

// Verify says how the module of a deployment is verified against the log of its service. Missing members have
// their defaults.
type Verify struct {
	Mode        string `json:"verify,omitempty"` // all, sample or none
	TimeoutMS   int64  `json:"verify_timeout_ms,omitempty"`
	RequireSame bool   `json:"require_same,omitempty"`
}

// VerifyOf is what the wire has of v.
func VerifyOf(v service.Verify) Verify {
	return Verify{Mode: string(v.Mode), TimeoutMS: v.Timeout.Milliseconds(), RequireSame: v.RequireSame}
}

// Value is v as the host takes it. Errors are of KindInvalid.
func (v Verify) Value() (service.Verify, error) {
	out := service.Verify{Mode: service.VerifyMode(v.Mode), RequireSame: v.RequireSame}
	const most = int64(math.MaxInt64 / time.Millisecond)
	if v.TimeoutMS < 0 || v.TimeoutMS > most {
		return out, service.Errorf(service.KindInvalid, "verify_timeout_ms is %d; it may be 0 to %d", v.TimeoutMS, most)
	}
	out.Timeout = time.Duration(v.TimeoutMS) * time.Millisecond
	return out, out.Validate()
}

// Rollback is the body of POST /v1/services/{service}/rollback: which earlier deployment to deploy again.
type Rollback struct {
	To service.Version `json:"to,omitempty"` // its number; 0: the newest that differs from the last one
	Verify
}

// Service describes a service and its present status.
type Service struct {
	service.Status
	Cursor   string    `json:"cursor"`             // of the last event on disk; later events come after it
	Manifest *Manifest `json:"manifest,omitempty"` // missing if the module could not be started
}

// ServiceOf converts s for the wire.
func ServiceOf(s service.Status) Service {
	out := Service{Status: s, Cursor: s.Cursor.String()}
	if s.Shards == nil {
		out.Shards = []service.ShardStatus{}
	}
	if s.Manifest.ABI != 0 {
		m := Manifest(s.Manifest)
		out.Manifest = &m
	}
	return out
}

// Value converts the status to the type of package service.
func (s *Service) Value() service.Status {
	out := s.Status
	out.Cursor, _ = service.ParseCursor(s.Cursor) // the zero one if the host sends something else
	if s.Manifest != nil {
		out.Manifest = abi.Manifest(*s.Manifest)
	}
	return out
}

// Services is the answer to GET /v1/services.
type Services struct {
	Services []Service `json:"services"`
}

// Resources is the answer to GET /v1/resources: how much of each of the host's resources is in use.
type Resources struct {
	Resources []service.ResourceUsage `json:"resources"`
}

// UploadLine is one line of an upload that streams its progress. Exactly one member
// is set; the last line has Module or Problem.
type UploadLine struct {
	Progress *service.Progress `json:"progress,omitempty"`
	Module   *Module           `json:"module,omitempty"`
	Problem  *Problem          `json:"problem,omitempty"`
}

// DeployLine is one line of a deployment that streams its progress. Exactly one
// member is set; the last line has Service or Problem, or, of a dry run, Verification.
type DeployLine struct {
	Progress     *service.Progress     `json:"progress,omitempty"`
	Service      *Service              `json:"service,omitempty"`
	Verification *service.Verification `json:"verification,omitempty"`
	Problem      *Problem              `json:"problem,omitempty"`
}

// DryRun is the answer to a deployment that was only verified.
type DryRun struct {
	Verification service.Verification `json:"verification"`
}

// Health is the answer of /healthz.
type Health struct {
	Status string `json:"status"` // "ok"
}

// Readiness is the answer of /readyz when the host accepts commands. Services that are starting or have
// failed do not make it unready. They are listed, so that clients that wait for one can see its state.
type Readiness struct {
	Status   string                            `json:"status"`   // "ready"
	Services map[service.State]ServicesInState `json:"services"` // by state, without running ones
	// Quarantined counts the entities that modules cannot hydrate; left out if there are none.
	Quarantined *QuarantinedEntities `json:"quarantined,omitempty"`
}

// QuarantinedEntities counts quarantined entities.
type QuarantinedEntities struct {
	Count int `json:"count"` // of all services
	// Services has the number of the first services that have any, by name; for those who have the host's
	// token, if it has one.
	Services map[service.Name]int `json:"services,omitempty"`
}

// ServicesInState are the services that are in one state.
type ServicesInState struct {
	Count int            `json:"count"`
	Names []service.Name `json:"names,omitempty"` // the first of them, by name; for those who have the host's token, if it has one
}

// maxListed is how many services a [Readiness] names in each state.
const maxListed = 100

// ReadinessOf counts the services that are not ready for commands, and the quarantined entities. It names the services
// if named is set.
func ReadinessOf(states map[service.Name]service.State, quarantined map[service.Name]int, named bool) Readiness {
	r := Readiness{Status: "ready", Services: map[service.State]ServicesInState{}}
	for _, name := range slices.Sorted(maps.Keys(states)) {
		state := states[name]
		switch state {
		case service.StateRunning, service.StateDraining, service.StateStopped: // stopped ones are stopped on purpose
			continue
		}
		in := r.Services[state]
		if in.Count++; named && len(in.Names) < maxListed {
			in.Names = append(in.Names, name)
		}
		r.Services[state] = in
	}
	for _, name := range slices.Sorted(maps.Keys(quarantined)) {
		if r.Quarantined == nil {
			r.Quarantined = &QuarantinedEntities{Services: map[service.Name]int{}}
		}
		r.Quarantined.Count += quarantined[name]
		if named && len(r.Quarantined.Services) < maxListed {
			r.Quarantined.Services[name] = quarantined[name]
		}
	}
	return r
}

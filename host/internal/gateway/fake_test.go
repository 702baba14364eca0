package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/fair"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
	"github.com/bulkhead-wasm/bulkhead/journal/backup"
)

// fake is a host of the services bank, which speaks JSON, and blob, which does not. The type of a command
// says what it does; see carryOut.
type fake struct {
	mu          sync.Mutex
	services    map[service.Name]*fakeService
	ready       error
	verify      service.Verify // of the last deployment
	deployErr   error
	gate        chan struct{} // "slow" waits for it
	slow        chan struct{} // has one for each "slow" that has begun
	seen        []service.Command
	budget      service.Budget
	account     *budget.Account
	modules     *service.Modules // what Modules returns, if not nil
	quarantined map[service.Name]int
	calls       atomic.Int64 // number of calls that change something, or reach a service
}

type fakeService struct {
	status service.Status
	events []fakeEvent
	more   chan struct{} // closed when there are more events
}

type fakeEvent struct {
	*service.Event
	key service.Key
	typ service.Type
}

func newFake() *fake {
	b := service.Budget{}.WithDefaults()
	f := &fake{budget: b, account: budget.New(budget.Limits{budget.FlightBytes: b.FlightBytes}),
		services: map[service.Name]*fakeService{}, gate: make(chan struct{}), slow: make(chan struct{}, 10_000)}
	f.add("bank", abi.EncodingJSON)
	f.add("blob", "application/octet-stream")
	return f
}

func (f *fake) add(name service.Name, encoding string) *fakeService {
	s := &fakeService{more: make(chan struct{}), status: service.Status{
		Spec:  service.Spec{Service: name, Module: service.DigestOf([]byte(name))}.WithDefaults(),
		State: service.StateRunning, Cursor: cursorAt(name, 0), Since: time.Unix(1, 0).UTC(),
		Manifest: abi.Manifest{ABI: 1, Service: string(name), Encoding: encoding,
			Events: []abi.EventType{{Name: "Added"}}},
		Shards: []service.ShardStatus{{}},
	}}
	f.services[name] = s
	return s
}

func (f *fake) find(name service.Name) (*fakeService, error) {
	s, ok := f.services[name]
	if !ok {
		return nil, &service.Error{Service: name, Kind: service.KindNotFound, Message: "there is no service " +
			string(name)}
	}
	return s, nil
}

func (f *fake) Upload(_ context.Context, module []byte, progress func(service.Progress)) (service.Module, error) {
	f.calls.Add(1)
	if progress != nil {
		progress(service.Progress{Stage: "verifying", Done: 1, Total: 2})
	}
	if string(module) != "\x00asm good" {
		return service.Module{}, &service.Error{Kind: service.KindBadModule, Message: "not a module",
			Reasons: []string{"no memory", "no exports"}, Detail: "secret path"}
	}
	return service.Module{Digest: service.DigestOf(module), Size: int64(len(module)),
		Manifest: f.services["bank"].status.Manifest}, nil
}

func (f *fake) Deploy(ctx context.Context, d service.Deployment) (service.Status, error) {
	f.calls.Add(1)
	if d.Progress != nil {
		d.Progress(service.Progress{Stage: "compile", Done: 1, Total: 2})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deployErr != nil {
		return service.Status{}, f.deployErr
	}
	s := f.services[d.Service]
	if s == nil {
		s = f.add(d.Service, abi.EncodingJSON)
	}
	f.verify = d.Verify
	s.status.Spec = service.Spec{Service: d.Service, Module: d.Digest, Limits: d.Limits,
		Settings: d.Settings}.WithDefaults()
	if d.Module != nil {
		s.status.Spec.Module = service.DigestOf(d.Module)
	}
	return s.status, nil
}

// Backup writes its input; "none" is refused and "half" breaks off.
func (f *fake) Backup(_ context.Context, w io.Writer, o service.BackupOptions) (*backup.Manifest, error) {
	f.calls.Add(1)
	if string(o.Since) == `{"id":"none"}` {
		return nil, &service.Error{Kind: service.KindConflicting, Message: "of another journal"}
	}
	if _, err := fmt.Fprintf(w, "backup since %s", o.Since); err != nil {
		return nil, err
	}
	if string(o.Since) == `{"id":"half"}` {
		_, err := w.Write(make([]byte, 2*backupPiece))
		return nil, errors.Join(err, service.Errorf(service.KindInternal, "the disk broke"))
	}
	return new(backup.Manifest), nil
}

// Batches writes its parameters.
func (f *fake) Batches(_ context.Context, name service.Name, w io.Writer, through uint64) (*backup.Manifest, error) {
	_, err := fmt.Fprintf(w, "%s through %d", name, through)
	return new(backup.Manifest), err
}

// Retain returns its parameters; 13 is refused.
func (f *fake) Retain(_ context.Context, name service.Name, r service.Retention) (journal.Retained, error) {
	f.calls.Add(1)
	if r.Before == 13 {
		return journal.Retained{}, &service.Error{Service: name, Kind: service.KindConflicting, Message: "no snapshots"}
	}
	return journal.Retained{First: r.Before, Through: r.Through, Promised: r.DryRun}, nil
}

func (f *fake) Stats() journal.Stats { return journal.Stats{Events: 7} }

func (f *fake) Logs() []journal.LogInfo {
	return []journal.LogInfo{{Name: "bank", Head: 3, Batches: 2}}
}

// EventTypes are those of every fake service.
func (f *fake) EventTypes(_ context.Context, name service.Name) ([]journal.EventType, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(name); err != nil {
		return nil, err
	}
	return []journal.EventType{{Type: "added", Count: 2, First: 1, Last: 3},
		{Type: "taken", Count: 1, First: 2, Last: 2}}, nil
}

func (f *fake) Turn(context.Context, service.Name) service.Turn {
	return fair.New(fair.Options{}).Turn("", "")
}

func (f *fake) Readers() service.Readers { return service.Readers{AtOnce: 1, Turns: 7} }

func (f *fake) Measure(_ context.Context, log journal.LogName) (journal.LogSize, error) {
	return journal.LogSize{LogInfo: journal.LogInfo{Name: log, Head: 3, Batches: 2}, Bytes: 99, Types: 2}, nil
}

func (f *fake) Modules() (service.Modules, error) {
	if f.modules != nil {
		return *f.modules, nil
	}
	d := service.Digest{1}
	return service.Modules{Modules: []service.StoredModule{{Digest: d, Size: 3, Services: []service.Name{"bank"}},
		{Digest: service.Digest{2}}}, Bytes: 3}, nil
}

func (f *fake) DeleteModule(d service.Digest) error {
	f.calls.Add(1)
	switch d {
	case service.Digest{1}:
		return service.Errorf(service.KindConflicting, "service bank runs it")
	case service.Digest{2}:
		return nil
	}
	return service.Errorf(service.KindNotFound, "no module %s is stored", d)
}

func (f *fake) Quarantine(name service.Name, after service.Key, limit int) (service.QuarantinePage, error) {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(name); err != nil {
		return service.QuarantinePage{}, err
	}
	p := service.QuarantinePage{Count: 3}
	for _, key := range []service.Key{"a", "b/c", "d"} {
		switch {
		case key <= after:
		case len(p.Entities) < limit:
			p.Entities = append(p.Entities, service.EntityFault{Key: key, Cannot: service.CannotHydrate, Version: 7})
		case p.After == "":
			p.After = p.Entities[limit-1].Key
		}
	}
	return p, nil
}

func (f *fake) Quarantined() map[service.Name]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.quarantined
}

func (f *fake) Release(_ context.Context, name service.Name, key service.Key) (service.Released, error) {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(name); err != nil {
		return service.Released{}, err
	}
	if key == "d" {
		return service.Released{}, service.Errorf(service.KindFault, "entity %q cannot be hydrated", key)
	}
	return service.Released{Quarantined: key == "b/c"}, nil
}

func (f *fake) Verify(_ context.Context, d service.Deployment) (service.Verification, error) {
	f.calls.Add(1)
	if d.Progress != nil {
		d.Progress(service.Progress{Stage: "replaying", Done: 1, Total: 2})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deployErr != nil {
		return service.Verification{}, f.deployErr
	}
	f.verify = d.Verify
	return service.Verification{Mode: service.VerifySample, Entities: 2}, nil
}

func (f *fake) Deployments(
	_ context.Context, name service.Name, before service.Version, limit int,
) (service.DeploymentPage, error) {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(name)
	if err != nil {
		return service.DeploymentPage{}, err
	}
	p := service.DeploymentPage{}
	for n := service.Version(5); n > 0; n-- { // so many deployments has each service
		if before > 0 && n >= before {
			continue
		}
		if len(p.Deployments) == limit {
			p.Before = n + 1
			break
		}
		p.Deployments = append(p.Deployments, service.DeploymentEntry{Number: n, Spec: s.status.Spec, Current: n == 5})
	}
	return p, nil
}

func (f *fake) Rollback(_ context.Context, r service.Rollback) (service.Status, error) {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(r.Service)
	if err != nil {
		return service.Status{}, err
	}
	if r.To > 5 {
		return service.Status{}, service.Errorf(service.KindNotFound, "no deployment %d", r.To)
	}
	if r.Progress != nil {
		r.Progress(service.Progress{Stage: "draining"})
	}
	f.verify = r.Verify
	return s.status, nil
}

func (f *fake) Delete(_ context.Context, name service.Name) error {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(name)
	if err != nil {
		return err
	}
	delete(f.services, name)
	close(s.more) // its subscribers notice
	return nil
}

func (f *fake) Status(name service.Name) (service.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(name)
	if err != nil {
		return service.Status{}, err
	}
	return s.status, nil
}

func (f *fake) Accepts(name service.Name) (service.Accepts, error) {
	s, err := f.Status(name)
	return service.Accepts{CommandBytes: s.Spec.Limits.CommandBytes, Encoding: s.Manifest.Encoding, State: s.State}, err
}

func (f *fake) Services() []service.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []service.Status
	for _, s := range f.services {
		all = append(all, s.status)
	}
	slices.SortFunc(all, func(a, b service.Status) int {
		return strings.Compare(string(a.Spec.Service), string(b.Spec.Service))
	})
	return all
}

// carryOut does what the command's type says: add appends an event; reject and fail-<kind> fail; binary
// replies something that is not JSON; reply-<n> and blob-<n> reply that many bytes of JSON, or of something
// else; slow waits for the gate.
func (f *fake) carryOut(ctx context.Context, c service.Command) (service.Reply, error) {
	f.calls.Add(1)
	if c.Type == "slow" {
		f.slow <- struct{}{}
		select {
		case <-f.gate:
		case <-ctx.Done():
			return service.Reply{}, service.Errorf(service.KindUnknown, "not waited for: %w", ctx.Err())
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(c.Service)
	if err != nil {
		return service.Reply{}, err
	}
	f.seen = append(f.seen, c)
	if len(c.Data) > s.status.Spec.Limits.CommandBytes {
		return service.Reply{}, service.Errorf(service.KindTooLarge, "data of %d bytes", len(c.Data))
	}
	if kind, ok := strings.CutPrefix(string(c.Type), "fail-"); ok {
		k, _ := service.ParseKind(kind)
		return service.Reply{}, &service.Error{
			Op: "send", Service: c.Service, Kind: k, Message: "told to fail", Detail: "secret stack",
			Err: errors.New("secret cause"), Reasons: []string{"because"}, Code: "some_code",
		}
	}
	var version service.Version
	for _, e := range s.events {
		if e.key == c.Key {
			version = e.Version
		}
	}
	if c.Expected != nil && *c.Expected != version {
		return service.Reply{}, service.Errorf(service.KindVersionConflict, "%s is at version %d, not %d", c.Key,
			version, *c.Expected)
	}
	reply := service.Reply{Service: c.Service, Key: c.Key, CommandID: c.ID, Data: []byte(`{"ok":true}`), Fuel: 7}
	if n, err := strconv.Atoi(strings.TrimPrefix(string(c.Type), "reply-")); err == nil {
		reply.Data = []byte(`"` + strings.Repeat("r", n-2) + `"`)
		return reply, nil
	}
	if n, err := strconv.Atoi(strings.TrimPrefix(string(c.Type), "blob-")); err == nil {
		reply.Data = bytes.Repeat([]byte{0xff}, n)
		return reply, nil
	}
	switch c.Type {
	case "reject":
		return service.Reply{}, &service.Error{Kind: service.KindRejected, Service: c.Service,
			Code: "insufficient_funds", Message: "the balance is 0"}
	case "conflict":
		at := service.Version(7)
		return service.Reply{}, &service.Error{Kind: service.KindVersionConflict, Service: c.Service, Version: &at,
			Message: "the entity is at version 7"}
	case "binary":
		reply.Data = []byte{0xff, '"', '}'}
	case "look":
	case "add", "slow", "other":
		version++
		s.append(c.Key, map[service.Type]service.Type{"other": "Other"}[c.Type], version, string(c.Data))
		reply.Events = 1
	default:
		return service.Reply{}, service.Errorf(service.KindUnknownType, "%s has no command %s", c.Service, c.Type)
	}
	reply.Version, reply.Position = version, s.status.Head
	reply.Cursor = cursorAt(c.Service, reply.Position)
	return reply, nil
}

func (s *fakeService) append(key service.Key, typ service.Type, version service.Version, data string) {
	if typ == "" {
		typ = "Added"
	}
	if data == "" {
		data = "null"
	}
	s.status.Head++
	s.status.Cursor = cursorAt(s.status.Spec.Service, s.status.Head)
	name := s.status.Spec.Service
	e := fakeEvent{key: key, typ: typ, Event: service.NewEvent(name, journal.Unborn(journal.LogName(name)),
		journal.Event{
			Position: s.status.Head, Key: string(key), Version: version, Type: string(typ), Data: []byte(data),
			Time: journal.UnixNano(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano()), Stamp: journal.Stamp{7},
		})}
	s.events = append(s.events, e)
	close(s.more)
	s.more = make(chan struct{})
}

func (f *fake) Send(ctx context.Context, c service.Command) (service.Reply, error) {
	r, err := f.carryOut(ctx, c)
	return landed(c, r, err)
}

func landed(c service.Command, r service.Reply, err error) (service.Reply, error) {
	if full := land(c.Carrier, len(r.Data), err); err == nil && full != nil {
		return service.Reply{}, &service.Error{Kind: service.KindUnknown, Message: "it was carried out",
			Resource: "bytes_in_flight"}
	}
	return r, err
}

// land ends a command as a host does.
func land(c service.Carrier, size int, err error) error {
	if c != nil {
		c.Unload()
		if err == nil {
			return c.Load(size)
		}
	}
	return err
}

func (f *fake) SendAsync(c service.Command, done func(service.Reply, error)) error {
	if c.Type == "refuse" {
		c.Carrier.Unload()
		return service.Errorf(service.KindOverloaded, "the mailbox is full")
	}
	go func() {
		r, err := f.carryOut(context.Background(), c)
		done(landed(c, r, err))
	}()
	return nil
}

func (f *fake) Query(ctx context.Context, q service.Query) (service.QueryReply, error) {
	r, err := f.carryOut(ctx, service.Command{Service: q.Service, Key: q.Key, Type: q.Type, Data: q.Data})
	if err = land(q.Carrier, len(r.Data), err); err != nil {
		return service.QueryReply{}, err
	}
	return service.QueryReply{Data: r.Data, Version: r.Version, Fuel: r.Fuel}, nil
}

// after is the position after which a selection of the gateway begins.
func after(s *service.Selection) service.Position { return s.From.Position - 1 }

func wants(s *service.Selection, e *fakeEvent) bool {
	return e.Position > after(s) && (len(s.Types) == 0 || slices.Contains(s.Types, e.typ)) &&
		(len(s.Keys) == 0 || slices.Contains(s.Keys, e.key))
}

// Events scans at most limit events at a time, so that filters have an effect on pages.
func (f *fake) Events(_ context.Context, sel service.Selection, limit int) (service.Page, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(sel.Service)
	if err != nil {
		return service.Page{}, err
	}
	if after(&sel) > s.status.Head {
		return service.Page{}, service.Errorf(service.KindBadCursor, "of the future")
	}
	var found []*service.Event
	next := after(&sel)
	for i := range s.events {
		if e := &s.events[i]; e.Position > after(&sel) && limit > 0 {
			limit--
			next = e.Position
			if wants(&sel, e) {
				found = append(found, e.Event)
			}
		}
	}
	return service.Page{Events: found, Next: next, AtHead: next == s.status.Head}, nil
}

func (f *fake) EntityPage(
	_ context.Context, name service.Name, key service.Key, after service.Version, limit, _ int,
) ([]*service.Event, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(name)
	if err != nil {
		return nil, false, err
	}
	var found []*service.Event
	for _, e := range s.events {
		if e.key == key && e.Version > after {
			if len(found) == limit {
				return found, true, nil
			}
			found = append(found, e.Event)
		}
	}
	return found, false, nil
}

// EntityFirst says that the first three events of k9 have been deleted.
func (f *fake) EntityFirst(_ context.Context, _ service.Name, key service.Key) (service.Version, error) {
	if key == "k9" {
		return 4, nil
	}
	return 1, nil
}

func (f *fake) Head(name service.Name) (service.Position, error) {
	s, err := f.Status(name)
	return s.Head, err
}

type fakeSubscriber struct {
	f   *fake
	sel service.Selection
}

func (f *fake) Subscribe(_ context.Context, sel service.Selection) (service.Subscriber, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(sel.Service)
	if err != nil {
		return nil, err
	}
	if after(&sel) > s.status.Head {
		return nil, service.Errorf(service.KindBadCursor, "of the future")
	}
	return &fakeSubscriber{f, sel}, nil
}

func (s *fakeSubscriber) Next(ctx context.Context, limit int) ([]*service.Event, error) {
	for {
		s.f.mu.Lock()
		svc, err := s.f.find(s.sel.Service)
		if err != nil {
			s.f.mu.Unlock()
			return nil, err
		}
		var found []*service.Event
		for i := range svc.events {
			if e := &svc.events[i]; wants(&s.sel, e) && len(found) < limit {
				found = append(found, e.Event)
			}
		}
		more := svc.more
		if len(found) > 0 {
			s.sel.From = service.AfterPosition(found[len(found)-1].Position)
		} else {
			s.sel.From = service.AfterPosition(svc.status.Head) // it has read past all events
		}
		s.f.mu.Unlock()
		if len(found) > 0 {
			return found, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *fakeSubscriber) Position() service.Position { return after(&s.sel) }

func (s *fakeSubscriber) Release() {}

// cursorAt is a cursor of a fake service, whose log has its own identity and one history.
func cursorAt(name service.Name, p service.Position) service.Cursor {
	return service.Cursor{Position: p, Origin: journal.Unborn(journal.LogName(name)), Stamp: journal.Stamp{7}}
}

func cursorOf(name service.Name, p service.Position) string { return cursorAt(name, p).String() }

func (f *fake) Place(_ context.Context, name service.Name, from service.From) (service.Cursor, error) {
	switch from.Kind {
	case service.FromEnd:
		head, err := f.Head(name)
		return cursorAt(name, head), err
	case service.FromCursor:
		c, err := service.ParseCursor(from.Cursor)
		if err == nil && c != cursorAt(name, c.Position) {
			err = service.Errorf(service.KindBadCursor, "%s is no cursor of %s", from.Cursor, name)
		}
		return c, err
	case service.FromPosition:
		return cursorAt(name, from.Position-1), nil
	}
	return cursorAt(name, 0), nil
}

func (f *fake) Cursor(_ context.Context, name service.Name, p service.Position) (service.Cursor, error) {
	return cursorAt(name, p), nil
}

func (f *fake) EntityVersion(
	_ context.Context, name service.Name, key service.Key, at service.Position,
) (v service.Version, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.find(name)
	if err != nil {
		return 0, err
	}
	for _, e := range s.events {
		if e.key == key && e.Position <= at {
			v = e.Version
		}
	}
	return v, nil
}

// KeptVersion says that the event of k9 at position 2, with version 2, is a kept event.
func (f *fake) KeptVersion(
	_ context.Context, name service.Name, key service.Key, cursor string,
) (service.Version, bool, error) {
	return 2, key == "k9" && cursor == cursorAt(name, 2).String(), nil
}

func (f *fake) Budget() service.Budget { return f.budget }

func (f *fake) Account() *budget.Account { return f.account }

func (f *fake) Resources() []service.ResourceUsage {
	return []service.ResourceUsage{{Resource: "bytes_in_flight", Used: 1, Limit: 2, Refused: 3,
		Holders: []service.ResourceHolder{{Name: "bank", Used: 1}}}}
}

func (f *fake) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready
}

func (f *fake) States() map[service.Name]service.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	states := map[service.Name]service.State{}
	for name, s := range f.services {
		states[name] = s.status.State
	}
	return states
}

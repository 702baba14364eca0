package registry

import (
	"context"
	"errors"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/budget"
	"github.com/bulkhead-wasm/bulkhead/host/internal/gate"
	"github.com/bulkhead-wasm/bulkhead/host/internal/scratch"
	"github.com/bulkhead-wasm/bulkhead/host/service"
	"github.com/bulkhead-wasm/bulkhead/journal"
)

// maxVerifying is how many verifications run at a time. Each holds gate.MaxBytes, and all of them share the
// turns that services leave.
const maxVerifying = 4

// verify verifies a module against the service's log, while the old module serves. Its sandboxes are of the
// service's budget, and work in the background.
func (s *Registry) verify(
	ctx context.Context, svc *Service, next *build, r *Request,
) (*service.Verification, error) {
	if r.Verify.Mode == service.VerifyNone {
		return &service.Verification{Mode: service.VerifyNone}, nil
	}
	if empty, err := s.isEmpty(ctx, r.Spec.Service); err != nil || empty {
		return &service.Verification{Mode: r.Verify.Mode}, err
	}
	end, err := s.beginVerifying(ctx, r)
	if err != nil {
		return nil, err
	}
	defer end()
	starting, cancel := context.WithTimeout(ctx, r.Verify.Timeout)
	defer cancel()
	fresh, err := s.scratch(starting, next)
	switch {
	case err != nil && ctx.Err() == nil && starting.Err() != nil:
		return nil, &service.Error{Op: "deploy", Service: r.Spec.Service, Kind: service.KindOverloaded,
			RetryAfter: time.Second, Err: err,
			Message: "the module was not verified: its sandbox did not start in all the time that the verification " +
				"may take; nothing has changed; give the verification more time, or deploy when the host has less " +
				"to do"}
	case err != nil:
		return nil, err
	}
	defer func() { _ = fresh.Close(ctx) }()
	turn := next.program.BackgroundTurn()
	defer turn.End()
	pace := func(ctx context.Context) error {
		err := turn.Begin(ctx)
		turn.Rest() // a guest takes its own turn
		return err
	}
	o := gate.Options{Service: r.Spec.Service, Log: s.opt.Journal, Verify: r.Verify, New: fresh, Pace: pace,
		Fits: func(ctx context.Context, typ uint16, data []byte) error {
			input := next.program.Schemas().Command(typ)
			if input == nil {
				return nil
			}
			_, err := input.Check(data, func() error { return pace(ctx) })
			return err
		},
		Progress: func(stage string, done, total int64) { r.Progress(Stage(stage), done, total) },
	}
	svc.mu.RLock()
	old := svc.running // its program stays during the deployment
	svc.mu.RUnlock()
	if old != nil {
		o.SameModule = old.spec.Module == next.spec.Module
		if o.Old, err = s.scratch(starting, old); err != nil {
			// Without it less is compared, and an entity that is lost already refuses the module.
			s.opt.Logger.Warn("a module is verified without a sandbox of the running one", "service",
				string(r.Spec.Service), "error", err)
		} else {
			defer func() { _ = o.Old.Close(ctx) }()
		}
	}
	return gate.Run(ctx, o)
}

// isEmpty reports whether there is nothing to verify a module against. Then it needs no sandbox.
func (s *Registry) isEmpty(ctx context.Context, name service.Name) (bool, error) {
	types, err := s.opt.Journal.EventTypes(ctx, journal.LogName(name))
	if err != nil || len(types) > 0 {
		return false, service.FromJournal{Use: service.JournalRead, Op: "deploy", Service: name,
			Otherwise: "the event types in the service's log cannot be read at present; nothing has changed"}.Of(err)
	}
	errTrimmed := errors.New("one entity")
	err = s.opt.Journal.AllTrimmed(ctx, journal.LogName(name), "", func(journal.Trimmed) error { return errTrimmed })
	if errors.Is(err, errTrimmed) {
		return false, nil
	}
	return err == nil, service.FromJournal{Use: service.JournalRead, Op: "deploy", Service: name,
		Otherwise: "the service's log cannot be read at present; nothing has changed"}.Of(err)
}

// beginVerifying waits for a place among the verifications, at most as long as this one may take, and takes
// the memory for it. The caller calls end.
func (s *Registry) beginVerifying(ctx context.Context, r *Request) (end func(), err error) {
	select {
	case s.verifying <- struct{}{}:
	default:
		if err := s.awaitVerifying(ctx, r); err != nil {
			return nil, err
		}
	}
	if err := s.verifications.Take(budget.FlightBytes, gate.MaxBytes); err != nil {
		<-s.verifying
		return nil, err
	}
	return func() {
		s.verifications.Give(budget.FlightBytes, gate.MaxBytes)
		<-s.verifying
	}, nil
}

// awaitVerifying waits for a place among the verifications.
func (s *Registry) awaitVerifying(ctx context.Context, r *Request) error {
	late := time.NewTimer(r.Verify.Timeout)
	defer late.Stop()
	select {
	case s.verifying <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &service.Error{Op: "deploy", Service: r.Spec.Service, Kind: service.KindOf(ctx.Err()), Err: ctx.Err(),
			Message: "the caller gave up while other modules were verified; nothing has changed"}
	case <-late.C:
		return &service.Error{Op: "deploy", Service: r.Spec.Service, Kind: service.KindOverloaded,
			RetryAfter: time.Second,
			Message: "the module was not verified: other modules were, all the time that the verification may take; " +
				"nothing has changed"}
	}
}

// scratch makes a sandbox of a build, apart from those that run it. What its guest logs is not of what happens,
// and is left out.
func (s *Registry) scratch(ctx context.Context, b *build) (*scratch.Scratch, error) {
	guest, err := b.program.InstantiateBackground(ctx, nil)
	if err != nil {
		return nil, err
	}
	return scratch.New(s.opt.Journal, b.spec.Service, service.NewManifestIndex(&b.module.Manifest), guest), nil
}

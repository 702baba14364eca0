package engine

import (
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/schema"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// checking is the task whose data a shard holds to its schema. It is kept, so that nothing
// is allocated for one.
type checking struct {
	task   *task
	schema *schema.Schema
	rest   func() error // of the guest's turns

	do    func(rest func() error) (time.Duration, error) // check
	pause func() error                                   // letOthers
}

// fits holds a task's data to the schema of its type, and to the rules of all JSON. This is done here, before
// the entity is hydrated, and not when the task is handed in: a repeated id gets its first answer, whatever the
// service's schema has become since; the time is the service's own; and what holds is the schema of the module
// that would run.
func (s *shard) fits(t *task, x *schema.Schema) *service.Error {
	if t.fitted || s.guest == nil { // without a guest the task fails for that
		return nil
	}
	if x == nil {
		return s.reads(t)
	}
	c := &s.checking
	c.task, c.schema = t, x
	err := s.guest.Work(s.ctx, c.do)
	c.task, c.schema, c.rest = nil, nil, nil
	switch {
	case err == nil:
		return s.reads(t)
	case s.ctx.Err() != nil:
		return s.unavailable(err, "the service was stopped while the data was checked; nothing was written")
	}
	return s.engine.own(err)
}

// reads holds a task's data to the rules of all JSON. A schema does so for what it describes only. A
// sender with a carrier has done it.
func (s *shard) reads(t *task) *service.Error {
	if data := t.command.Data; s.engine.json && t.command.Carrier == nil && len(data) > 0 {
		if err := service.CheckJSON("the data", data); err != nil {
			return s.engine.own(err)
		}
	}
	t.fitted = true
	return nil
}

// check is what the guest's turns are taken for.
func (c *checking) check(rest func() error) (took time.Duration, err error) {
	c.rest = rest
	return c.schema.Check(c.task.command.Data, c.pause)
}

// letOthers lets others run, and ends the check of what nobody waits for any more.
func (c *checking) letOthers() error {
	if err := c.rest(); err != nil {
		return err
	}
	of := &c.task.command
	if !of.Deadline.IsZero() && !time.Now().Before(of.Deadline) {
		return service.Errorf(service.KindDeadline,
			"the deadline passed while the data was checked; nothing was written")
	}
	select {
	case <-of.Gone:
		return service.Errorf(service.KindCanceled,
			"the caller went away while the data was checked; nothing was written")
	default:
		return nil
	}
}

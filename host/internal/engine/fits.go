package engine

import (
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/schema"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// checking holds the task whose data a shard checks. Each shard has one and reuses it, so that a
// check does not allocate.
type checking struct {
	task   *task
	schema *schema.Schema
	rest   func() error // gives up the guest's turn for a moment; see Guest.Work

	do    func(rest func() error) (time.Duration, error) // the method check
	pause func() error                                   // the method letOthers
}

// fits checks a task's data against the schema of its type, and against the rules for all JSON. The
// shard does this before it hydrates the entity, and Submit does not, for three reasons: a repeated
// id gets its first answer, even if the schema has changed since; the time is charged to the
// service; and the schema is that of the module that would run.
func (s *shard) fits(t *task, x *schema.Schema) *service.Error {
	if t.fitted || s.guest == nil { // without a guest the task fails anyway
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

// reads checks a task's data against the rules for all JSON. A schema checks only the parts that it
// describes. If the task has a carrier, its sender has made this check.
func (s *shard) reads(t *task) *service.Error {
	if data := t.command.Data; s.engine.json && t.command.Carrier == nil && len(data) > 0 {
		if err := service.CheckJSON("the data", data); err != nil {
			return s.engine.own(err)
		}
	}
	t.fitted = true
	return nil
}

// check runs within the guest's turns.
func (c *checking) check(rest func() error) (took time.Duration, err error) {
	c.rest = rest
	return c.schema.Check(c.task.command.Data, c.pause)
}

// letOthers lets other services run. It ends the check if the deadline has passed or the caller is
// gone.
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

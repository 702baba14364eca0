package engine

import (
	"errors"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// checkCommand refuses what no shard needs to see, and returns the number of the command's type.
func (e *Engine) checkCommand(c *service.Command) (uint16, error) {
	if err := e.checkTarget(c.Service, c.Key, c.Data); err != nil {
		return 0, err
	}
	typ, known := e.manifest.Command(c.Type)
	if !known {
		return 0, e.unknownType("command", c.Type)
	}
	if c.ID != "" {
		if _, err := service.ParseCommandID(string(c.ID)); err != nil {
			return 0, e.own(err)
		}
	}
	switch err := c.Metadata.Valid(); {
	case errors.Is(err, abi.ErrTooLarge):
		return 0, e.errorf(service.KindTooLarge, "metadata has %d bytes; it may have %d", len(c.Metadata),
			abi.MaxMetadataSize)
	case err != nil:
		return 0, e.errorf(service.KindInvalid, "metadata is not a sequence of names and values: %w", err)
	}
	if c.Carrier == nil { // otherwise the sender has checked
		if name := service.RepeatedName(c.Metadata); name != "" {
			return 0, e.errorf(service.KindInvalid, "metadata has the name %.80q twice, in whatever case", name)
		}
	}
	return typ, nil
}

func (e *Engine) checkQuery(q *service.Query) (uint16, error) {
	if err := e.checkTarget(q.Service, q.Key, q.Data); err != nil {
		return 0, err
	}
	typ, known := e.manifest.Query(q.Type)
	if !known {
		return 0, e.unknownType("query", q.Type)
	}
	return typ, nil
}

func (e *Engine) checkTarget(name service.Name, key service.Key, data []byte) error {
	if name != e.options.Spec.Service {
		return e.errorf(service.KindInternal, "a request to service %q came to the engine of %q", name,
			e.options.Spec.Service)
	}
	if _, err := service.ParseKey(string(key)); err != nil {
		return e.own(err)
	}
	if limit := e.options.Spec.Limits.CommandBytes; len(data) > limit {
		return e.errorf(service.KindTooLarge, "data has %d bytes; the service takes %d", len(data), limit)
	}
	return nil
}

// unknownType quotes no more of a name than a type may have.
func (e *Engine) unknownType(what string, t service.Type) error {
	if len(t) > abi.MaxNameSize {
		return e.errorf(service.KindUnknownType, "the service has no %s type with a name of %d bytes", what, len(t))
	}
	return e.errorf(service.KindUnknownType, "the service has no %s of type %q", what, t)
}

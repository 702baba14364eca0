package api

import (
	"errors"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// messageOf is the client-safe part of an error made here.
func messageOf(err error) string {
	var e *service.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}

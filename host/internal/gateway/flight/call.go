package flight

import (
	"context"
	"errors"
	"time"

	"github.com/bulkhead-wasm/bulkhead/host/internal/jsoncheck"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// RetrySoon is when a client may try again if nothing better is known.
const RetrySoon = time.Second

// GraceTime is how long an answer is waited for after the sender's deadline. A command that had begun by then
// has an outcome soon, and a known outcome is better than an unknown one.
const GraceTime = 5 * time.Second

// Await bounds the wait for an answer: by longest, and by [GraceTime] after the deadline if there is one.
func Await(ctx context.Context, longest time.Duration, deadline time.Time) (context.Context, context.CancelFunc) {
	if !deadline.IsZero() {
		longest = min(longest, time.Until(deadline)+GraceTime)
	}
	return context.WithTimeout(ctx, longest)
}

// TooLate is the error of a request whose deadline had passed when it arrived.
func TooLate() error {
	return service.Errorf(service.KindDeadline, "the deadline had passed when the request came")
}

// Stopping is the error of a request that arrives while the host stops.
func Stopping() error {
	return &service.Error{Kind: service.KindUnavailable, Message: "the host is stopping", RetryAfter: RetrySoon}
}

// Accepter knows what data services accept.
type Accepter interface {
	// Accepts describes the data that a service accepts; KindNotFound if there is no such service.
	Accepts(name service.Name) (service.Accepts, error)
}

// CheckJSON is service.CheckJSON with accounting: the memory that it needs is taken meanwhile.
func (f *Account) CheckJSON(data []byte) error {
	room := jsoncheck.Room(len(data))
	if err := f.Take(room); err != nil {
		return err
	}
	defer f.Give(room)
	return service.CheckJSON("the data", data)
}

// CheckUndeclared checks data that came without a content type: a service that speaks JSON gets only JSON.
func (f *Account) CheckUndeclared(a Accepter, name service.Name, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	wrong := f.CheckJSON(data)
	if !isMalformed(wrong) {
		return wrong
	}
	accepts, err := a.Accepts(name)
	if err != nil {
		return err
	}
	if encoding, err := EncodingOf(name, accepts); err != nil || !service.IsJSON(encoding) {
		return err
	}
	return wrong
}

// isMalformed reports whether an error of CheckJSON is about the data, and not about memory.
func isMalformed(err error) bool {
	var e *service.Error
	return errors.As(err, &e) && e.Kind == service.KindInvalid
}

// EncodingOf is the encoding of a service's data. It may be unknown while a service has not started; then the
// sender must try again.
func EncodingOf(name service.Name, accepts service.Accepts) (string, error) {
	if accepts.Encoding == "" {
		return "", &service.Error{Service: name, Kind: service.KindUnavailable, RetryAfter: RetrySoon,
			Message: "the service is " + string(accepts.State) + ", and until it has run it is not known whether it " +
				"takes data of this type"}
	}
	return accepts.Encoding, nil
}

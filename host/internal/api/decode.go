package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"

	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// DecodeStrict reads one JSON object that has no members unknown to v. What is
// wrong with it is said in the words of its sender, who has never seen our types.
func DecodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return inPlainWords(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return service.Errorf(service.KindInvalid, "there is something behind the JSON object")
	}
	return nil
}

func inPlainWords(err error) error {
	var known *service.Error
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &wrong) && wrong.Field == "":
		return service.Errorf(service.KindInvalid, "it is %s; it should be a JSON object", article(wrong.Value))
	case errors.As(err, &wrong):
		return service.Errorf(service.KindInvalid, "%s is %s; it takes %s", wrong.Field, article(wrong.Value), wanted(wrong.Type))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return service.Errorf(service.KindInvalid, "the JSON ends too early")
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return service.Errorf(service.KindInvalid, "there is no member %.100s", name)
	}
	return service.Errorf(service.KindInvalid, "it is not JSON: %w", err)
}

// article makes a phrase of what encoding/json calls a value: "string" or
// "number -2".
func article(value string) string {
	switch value {
	case "object", "array":
		return "an " + value
	case "bool":
		return "true or false"
	}
	if number, ok := strings.CutPrefix(value, "number "); ok {
		return number
	}
	return "a " + value
}

// wanted says what a member of a type takes.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return "a whole number from 0 on"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a string in base64"
		}
		return "an array"
	}
	return "an object"
}

// messageOf is the client-safe part of an error made here.
func messageOf(err error) string {
	var e *service.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}

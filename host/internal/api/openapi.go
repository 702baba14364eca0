package api

import _ "embed"

// OpenAPI is the document that describes the protocol, in JSON. Do not change it.
//
//go:embed openapi.json
var OpenAPI []byte

package api

import _ "embed"

//go:embed openapi.json
var openAPI string

// OpenAPI is the document that describes the protocol, in JSON. The bytes are the caller's.
func OpenAPI() []byte { return []byte(openAPI) }

package api

import _ "embed"

//go:embed openapi.json
var openAPI string

// OpenAPI is the document that describes the protocol, in JSON. The caller owns the bytes.
func OpenAPI() []byte { return []byte(openAPI) }

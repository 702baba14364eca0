// Package describe says what a service takes and gives, from the schemas in its manifest: for people as a table of
// fields, for tools as an OpenAPI document.
//
// A manifest is untrusted. Whatever its schemas are, the results are well-formed, and bounded in size and in the
// work that they take.
package describe

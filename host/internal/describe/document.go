package describe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/api"
	"github.com/bulkhead-wasm/bulkhead/host/internal/schema"
	"github.com/bulkhead-wasm/bulkhead/host/service"
)

// Bounds of a document, in bytes: its size, and the texts of the schemas in it. Compiling schemas is most of the work.
const (
	MaxDocument = 4 << 20
	maxSchemas  = 256 << 10
)

// OpenAPI is the OpenAPI 3.1 document of one service: each command and query as an operation, the types of events,
// and the routes that read events. Parameters, answers and errors are those of the host's own document. Schemas of
// the module become components, and examples fit them. A schema that cannot be used, or that is beyond 256 KiB of
// schemas, is replaced by one that says so.
// rest is called between two schemas to let others run; its error ends the work and is returned.
//
// The error is KindTooLarge if the document would have more than [MaxDocument] bytes.
func OpenAPI(name service.Name, m *abi.Manifest, rest func() error) ([]byte, error) {
	d := &document{name: string(name), manifest: m, host: hostDocument(), rest: rest, used: map[string]bool{},
		json: m.Encoding == "" || service.IsJSON(m.Encoding), left: maxSchemas}
	for i := range m.Commands {
		d.command(&m.Commands[i])
	}
	for i := range m.Queries {
		d.query(&m.Queries[i])
	}
	d.events()
	return d.whole()
}

// hostDocument is the host's own document. It is not changed.
var hostDocument = sync.OnceValue(func() *schema.Object {
	const enough = 1 << 20 // values, and levels
	v, err := schema.Parse(string(api.OpenAPI()), enough, enough)
	if err != nil {
		panic("the host's OpenAPI document: " + err.Error())
	}
	return v.(*schema.Object)
})

// document is a document that is being written. After an error it only keeps the error.
type document struct {
	name     string
	manifest *abi.Manifest
	json     bool // bodies are JSON, so schemas apply
	host     *schema.Object
	rest     func() error
	left     int // bytes of schemas
	err      error

	paths, schemas, parameters, responses bytes.Buffer // the members of these objects

	types []eventType
	used  map[string]bool // parts of the host's document, by reference
	queue []string        // those of them that are not written yet
}

// eventType is a type of event under all its names, the present one first.
type eventType struct {
	names []any
	described
}

// part returns an object of the host's document.
func (d *document) part(pointer string) *schema.Object {
	v, _ := schema.Pointed(d.host, pointer)
	o, _ := v.(*schema.Object)
	return o
}

// operation returns a copy of an operation of the host. Its parts are shared and must not be changed.
func (d *document) operation(path, method string) *schema.Object {
	return copied(d.part("/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(path) + "/" + method))
}

func copied(o *schema.Object) *schema.Object {
	c := &schema.Object{}
	for _, name := range o.Names {
		v, _ := o.Get(name)
		c.Set(name, v)
	}
	return c
}

// within copies the object at a path of names in o, and all objects on the way, and returns it.
func within(o *schema.Object, path ...string) *schema.Object {
	for _, name := range path {
		inner, _ := get[*schema.Object](o, name)
		if inner == nil {
			inner = &schema.Object{}
		}
		inner = copied(inner)
		o.Set(name, inner)
		o = inner
	}
	return o
}

// Paths of the host's document.
const (
	commandPath      = "/v1/services/{service}/entities/{key}/commands/{type}"
	queryPath        = "/v1/services/{service}/entities/{key}/queries/{type}"
	entityEventsPath = "/v1/services/{service}/entities/{key}/events"
	eventsPath       = "/v1/services/{service}/events"
)

// path fills in the service and the type.
func (d *document) path(template, kind string) string {
	return strings.NewReplacer("{service}", d.name, "{type}", kind).Replace(template)
}

// addressable reports whether a name can be a segment of a path.
func addressable(name string) bool { return name != "." && name != ".." }

func (d *document) command(c *abi.CommandType) {
	if d.err != nil || !addressable(c.Name) {
		return
	}
	in := d.schema("command."+c.Name+".input", c.Input)
	out := d.schema("command."+c.Name+".reply", c.Reply)
	op := d.operation(commandPath, "post")
	d.about(op, "command", c.Name, in)
	d.body(op, in)
	reply := d.answer(op, "Reply", out)
	if out.given {
		reply.Set("example", objectOf("service", d.name, "key", exampleKey, "command_id", "id-1", "reply", out.value,
			"version", json.Number("1"), "position", json.Number("1"), "cursor", "opaque", "events", json.Number("1"),
			"fuel", json.Number("21460"), "repeated", false))
	}
	d.add(d.path(commandPath, c.Name), objectOf("parameters", []any{parameter("Key")}, "post", op))
}

func (d *document) query(q *abi.QueryType) {
	if d.err != nil || !addressable(q.Name) {
		return
	}
	in := d.schema("query."+q.Name+".input", q.Input)
	out := d.schema("query."+q.Name+".reply", q.Reply)
	item := objectOf("parameters", []any{parameter("Key")})
	for _, method := range []string{"get", "post"} {
		op := d.operation(queryPath, method)
		d.about(op, "query", q.Name, in)
		if method == "get" {
			d.dataParameter(op, in)
		} else {
			op.Set("operationId", "query."+q.Name+".post")
			d.body(op, in)
		}
		reply := d.answer(op, "QueryReply", out)
		if out.given {
			reply.Set("example", objectOf("version", json.Number("1"), "reply", out.value, "fuel", json.Number("9875")))
		}
		if method == "post" || d.json {
			item.Set(method, op)
		}
	}
	d.add(d.path(queryPath, q.Name), item)
}

// exampleKey is the entity in examples.
const exampleKey = "example"

func parameter(name string) *schema.Object { return objectOf("$ref", "#/components/parameters/"+name) }

// about names an operation and says what it is for.
func (d *document) about(op *schema.Object, kind, name string, in described) {
	op.Set("operationId", kind+"."+name)
	op.Set("tags", []any{kind})
	op.Set("summary", strings.ToUpper(kind[:1])+kind[1:]+" "+name)
	if in.about != "" {
		op.Set("description", in.about)
	} else {
		op.Delete("description")
	}
}

// encoding is the content type of all bodies.
func (d *document) encoding() string {
	if d.manifest.Encoding == "" {
		return abi.EncodingJSON
	}
	return d.manifest.Encoding
}

// body sets the request's body.
func (d *document) body(op *schema.Object, in described) {
	media := objectOf("schema", in.schema())
	if in.given {
		media.Set("example", in.value)
	}
	body := within(op, "requestBody")
	body.Set("required", !in.optional && d.json)
	body.Set("content", objectOf(d.encoding(), media))
}

// dataParameter sets the parameter that has a query's data.
func (d *document) dataParameter(op *schema.Object, in described) {
	all, _ := get[[]any](op, "parameters")
	var out []any
	for _, p := range all {
		if o, ok := p.(*schema.Object); ok {
			if name, _ := get[string](o, "name"); name == "data" {
				media := objectOf("schema", in.schema())
				if in.given {
					media.Set("example", in.value)
				}
				p = objectOf("name", "data", "in", "query", "description", "The query's data.",
					"required", !in.optional, "content", objectOf(abi.EncodingJSON, media))
			}
		}
		out = append(out, p)
	}
	op.Set("parameters", out)
}

// answer sets the schema of a successful answer, and returns its media type, which has no example.
func (d *document) answer(op *schema.Object, kind string, out described) *schema.Object {
	media := objectOf("schema", reference(kind))
	if out.ref != "" {
		media.Set("schema", objectOf("allOf", []any{reference(kind),
			objectOf("type", "object", "properties", objectOf("reply", out.schema()))}))
	}
	within(op, "responses", "200").Set("content", objectOf(abi.EncodingJSON, media))
	return media
}

// add writes a path, and notes which parts of the host's document it uses.
func (d *document) add(path string, item *schema.Object) {
	d.member(&d.paths, path, item)
	d.uses(item)
}

// member appends a member to a list of members.
func (d *document) member(b *bytes.Buffer, name string, v any) {
	if d.err != nil {
		return
	}
	text := schema.AppendJSON(append(schema.AppendJSON(nil, name), ':'), v)
	if d.paths.Len()+d.schemas.Len()+d.parameters.Len()+d.responses.Len()+len(text) > MaxDocument-frame {
		d.err = service.Errorf(service.KindTooLarge, "the OpenAPI document of %s would have more than %d bytes", d.name,
			MaxDocument)
		return
	}
	if b.Len() > 0 {
		b.WriteByte(',')
	}
	b.Write(text)
}

// uses notes the references to parts of the host's document.
func (d *document) uses(v any) {
	switch v := v.(type) {
	case *schema.Object:
		ref, _ := get[string](v, "$ref")
		if strings.HasPrefix(ref, "#/components/") && !d.used[ref] && d.part(ref[1:]) != nil {
			d.used[ref] = true
			d.queue = append(d.queue, ref)
		}
		for _, name := range v.Names {
			x, _ := v.Get(name)
			d.uses(x)
		}
	case []any:
		for _, x := range v {
			d.uses(x)
		}
	}
}

// described is a schema of the module in the document.
type described struct {
	ref      string // of its component; "" if it accepts anything
	about    string // its title and description
	optional bool   // no data fits
	value    any    // an example, if given
	given    bool
}

// schema refers to it; one that accepts anything needs no reference.
func (s described) schema() *schema.Object {
	if s.ref == "" {
		return &schema.Object{}
	}
	return reference(s.ref)
}

// schema adds a schema of the module to the components.
func (d *document) schema(key, text string) (s described) {
	s.optional = true
	if d.err != nil || !d.json {
		return s
	}
	if d.rest != nil {
		if d.err = d.rest(); d.err != nil {
			return s
		}
	}
	if d.left -= len(text); d.left < 0 && text != "" {
		return d.unsaid(s, key, "The module's own schema is left out, as its schemas have more than 256 KiB.")
	}
	compiled, err := schema.New(strings.ReplaceAll(key, ".", " "), text)
	if err != nil {
		return d.unsaid(s, key, "The module's own schema cannot be used: "+err.Error())
	}
	if compiled == nil { // it accepts anything
		return s
	}
	keys, all, err := rewrite(key, text)
	if err != nil { // it was compiled before
		d.err = service.Errorf(service.KindInternal, "describe %s: %w", key, err)
		return s
	}
	s.ref, s.about = key, about(all[key])
	for _, k := range keys {
		d.member(&d.schemas, k, all[k])
	}
	_, err = compiled.Check(nil, d.rest)
	s.optional = err == nil
	s.value, s.given = d.sample(compiled, text)
	return s
}

// unsaid adds a component that says why the module's own schema is not there.
func (d *document) unsaid(s described, key, why string) described {
	s.ref = key
	d.member(&d.schemas, key, objectOf("description", why))
	return s
}

// sample is an example that fits.
func (d *document) sample(s *schema.Schema, text string) (any, bool) {
	value, ok := schema.Sample(text, 0)
	if !ok {
		return nil, false
	}
	if _, err := s.Check(value, d.rest); err != nil {
		return nil, false
	}
	v, err := schema.Parse(string(value), schema.MaxValues, 2*schema.MaxDepth)
	return v, err == nil && finite(v)
}

// about is the title and description of a schema.
func about(o *schema.Object) string {
	title, _ := get[string](o, "title")
	text, _ := get[string](o, "description")
	return strings.TrimSpace(title + "\n\n" + text)
}

// events writes the types of events, and the routes that read them.
func (d *document) events() {
	for i := range d.manifest.Events {
		e := &d.manifest.Events[i]
		x := eventType{[]any{e.Name}, d.schema("event."+e.Name, e.Schema)}
		for _, alias := range e.Aliases {
			x.names = append(x.names, alias)
		}
		x.given = x.given && e.UpcastTo == "" // an old type is no example
		d.types = append(d.types, x)
	}
	for _, path := range []string{entityEventsPath, eventsPath} {
		if d.err == nil {
			d.eventPath(path)
		}
	}
}

// eventPath writes a route that reads events, with an example of this service's.
func (d *document) eventPath(path string) {
	op := d.operation(path, "get")
	op.Set("tags", []any{"event"})
	content := within(op, "responses", "200", "content")
	for _, kind := range content.Names {
		media := within(content, kind)
		example, _ := media.Get("example")
		if is[string](example) { // of a stream
			continue
		}
		media.Delete("example")
		if own := d.eventExample(example); own != nil {
			media.Set("example", own)
		}
	}
	item := objectOf("get", op)
	if path == entityEventsPath {
		item = objectOf("parameters", []any{parameter("Key")}, "get", op)
	}
	d.add(d.path(path, ""), item)
}

// eventExample turns the host's example of a page or a batch into one of this service; nil if there is none.
func (d *document) eventExample(example any) any {
	for i := range d.types {
		if !d.types[i].given {
			continue
		}
		switch x := example.(type) {
		case []any:
			return []any{d.eventOf(x, &d.types[i])}
		case *schema.Object:
			list, _ := get[[]any](x, "events")
			page := copied(x)
			page.Set("events", []any{d.eventOf(list, &d.types[i])})
			return page
		}
	}
	return nil
}

func (d *document) eventOf(list []any, t *eventType) *schema.Object {
	e := copied(list[0].(*schema.Object))
	e.Set("source", "/services/"+d.name)
	e.Set("type", t.names[0])
	e.Set("subject", exampleKey)
	e.Set("datacontenttype", d.encoding())
	e.Set("data", t.value)
	if len(d.manifest.Commands) > 0 {
		e.Set("commandtype", d.manifest.Commands[0].Name)
	}
	return e
}

// typed adds to the host's schema of an event what the data of each type is.
func (d *document) typed(event *schema.Object) *schema.Object {
	var types []any
	for i := range d.types {
		t := &d.types[i]
		types = append(types, objectOf("type", "object", "properties",
			objectOf("type", objectOf("enum", t.names), "data", t.schema())))
	}
	if len(types) == 0 {
		return event
	}
	return objectOf("allOf", []any{event, objectOf("anyOf", types)})
}

// component writes a part of the host's document.
func (d *document) component(ref string) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(ref, "#/components/"), "/")
	part := d.part(ref[1:])
	d.uses(part)
	switch kind {
	case "schemas":
		if name == "Event" || name == "CloudEvent" {
			part = d.typed(part)
		}
		d.member(&d.schemas, name, part)
	case "parameters":
		d.member(&d.parameters, name, part)
	case "responses":
		d.member(&d.responses, name, part)
	}
}

// frame is more than what a document has beside paths and components, in bytes.
const frame = 16 << 10

// whole puts the document together.
func (d *document) whole() ([]byte, error) {
	for i := 0; i < len(d.queue); i++ {
		d.component(d.queue[i])
	}
	if d.err != nil {
		return nil, d.err
	}
	version, about := d.manifest.Version, "The service "+d.name+" of a Bulkhead host: its commands, queries and events."
	if version == "" {
		version = "not said"
	}
	if d.manifest.SDK != "" {
		about += " It was made with " + d.manifest.SDK + "."
	}
	security, _ := d.host.Get("security")
	head := schema.AppendJSON(nil, objectOf("openapi", "3.1.0",
		"info", objectOf("title", d.name, "version", version, "description", about),
		"servers", []any{objectOf("url", serverURL)},
		"security", security,
		"tags", []any{tag("command", "What changes an entity."), tag("query", "What asks an entity."),
			tag("event", "What has happened.")}))
	out := bytes.NewBuffer(make([]byte, 0, d.paths.Len()+d.schemas.Len()+d.parameters.Len()+d.responses.Len()+frame))
	out.Write(head[:len(head)-1])
	fmt.Fprintf(out, `,"paths":{%s},"components":{"securitySchemes":%s,"parameters":{%s},"responses":{%s},`+
		`"schemas":{%s}}}`, d.paths.Bytes(), schema.AppendJSON(nil, d.part("/components/securitySchemes")),
		d.parameters.Bytes(), d.responses.Bytes(), d.schemas.Bytes())
	return out.Bytes(), nil
}

func tag(name, about string) *schema.Object { return objectOf("name", name, "description", about) }

// serverURL leads from the document to the host that serves it, also if the host is mounted below a path.
const serverURL = "../../.."

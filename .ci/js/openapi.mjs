// Holds OpenAPI documents to what their readers need. Redocly checks the document, its references and the
// examples in it; Ajv compiles each schema in it, and checks each example and each value that the caller says
// is one of a component, or is not. Standard input has one JSON object a line, as
// host/hosttest/openapi_node_test.go writes them: {name, document, values: [{schema, value, fits}], broken}. In a
// document that is broken, something has to be found.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(process.argv[2] + "/");
const { lintFromString, createConfig } = require("@redocly/openapi-core");
const { default: Ajv } = require("ajv/dist/2020.js");
const { default: addFormats } = require("ajv-formats");

// Formats of the SDKs that no registry has.
const formats = ["ip", "ip-port", "cidr", "binary"];

const config = await createConfig({
  rules: {
    struct: "error",
    "no-unresolved-refs": "error",
    "no-undefined-server-variable": "error",
    "no-identical-paths": "error",
    "no-ambiguous-paths": "error",
    "no-path-trailing-slash": "error",
    "path-declaration-must-exist": "error",
    "path-not-include-query": "error",
    "path-parameters-defined": "error",
    "operation-operationId": "error",
    "operation-operationId-unique": "error",
    "operation-operationId-url-safe": "error",
    "operation-parameters-unique": "error",
    "operation-summary": "error",
    "security-defined": "error",
    "no-enum-type-mismatch": "error",
    "no-invalid-media-type-examples": { severity: "error", allowAdditionalProperties: true },
    "no-invalid-parameter-examples": { severity: "error", allowAdditionalProperties: true },
    "no-invalid-schema-examples": { severity: "error", allowAdditionalProperties: true },
  },
});

let found = []; // in the present document

function failed(name, message) {
  found.push(`${name}: ${message}`);
}

async function lint(name, text) {
  for (const p of await lintFromString({ source: text, absoluteRef: `/${name}.json`, config })) {
    failed(name, `${p.ruleId}: ${p.message} (${p.location.map((l) => l.pointer).join(", ")})`);
  }
}

function compiler(document) {
  const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: true, logger: false });
  addFormats(ajv);
  formats.forEach((format) => ajv.addFormat(format, true));
  ajv.addSchema({ $id: "doc", components: document.components });
  return ajv;
}

// relative makes the references of a schema relative to the document that Ajv knows.
function relative(v) {
  if (Array.isArray(v)) return v.map(relative);
  if (v === null || typeof v !== "object") return v;
  return Object.fromEntries(
    Object.entries(v).map(([name, x]) => [name, name === "$ref" && typeof x === "string" ? "doc" + x : relative(x)]),
  );
}

let schemas = 0;
let examples = 0;

function compile(ajv, name, place, schema) {
  schemas++;
  try {
    return ajv.compile(schema);
  } catch (error) {
    failed(name, `${place}: ${error.message}`);
  }
}

function expect(name, place, validate, value, fits) {
  examples++;
  if (validate && validate(value) !== fits) {
    failed(name, `${place}: ${JSON.stringify(value)} ${fits ? "does not fit" : "fits"}: ${JSON.stringify(validate.errors)}`);
  }
}

// media checks all media types and parameters in a part of the document.
function media(ajv, name, place, v) {
  if (v === null || typeof v !== "object") return;
  if (!Array.isArray(v) && typeof v.schema === "object") {
    const validate = compile(ajv, name, place, relative(v.schema));
    if ("example" in v) expect(name, place, validate, v.example, true);
  }
  for (const [key, x] of Object.entries(v)) {
    if (key !== "schema" && key !== "example") media(ajv, name, `${place}/${key}`, x);
  }
}

let documents = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const { name, document, values, broken } = JSON.parse(line);
  documents++;
  found = [];
  await lint(name, JSON.stringify(document, null, 1));
  const ajv = compiler(document);
  for (const key of Object.keys(document.components.schemas)) {
    compile(ajv, name, key, { $ref: `doc#/components/schemas/${key}` });
  }
  media(ajv, name, "paths", document.paths);
  for (const kind of ["parameters", "responses"]) media(ajv, name, kind, document.components[kind]);
  for (const { schema, value, fits } of values ?? []) {
    expect(name, schema, ajv.getSchema(`doc#/components/schemas/${schema}`), value, fits);
  }
  if (broken ? !found.some((text) => text.includes(broken)) : found.length > 0) {
    console.error(broken ? `${name}: nothing was found with ${broken}, but ${found}` : found.join("\n"));
    process.exitCode = 1;
  }
}
console.log(`${documents} documents, ${schemas} schemas, ${examples} values`);

// Reads events with the official JavaScript SDK of CloudEvents and holds what it finds to what
// the caller says: on standard input one JSON object a line, as host/internal/stream/js_test.go writes them.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const { HTTP } = createRequire(process.argv[2] + "/")("cloudevents");

const known = ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data", "data_base64", "metadata"];
let read = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const want = JSON.parse(line);
  let event;
  try {
    event = HTTP.toEvent({ headers: { "content-type": "application/cloudevents+json" }, body: want.text });
    assert.equal(event.validate(), true);
    assert.equal(event.id, want.id);
    assert.equal(event.type, want.type);
    assert.equal(event.subject, want.subject);
    assert.equal(event.source, "/services/bank");
    assert.equal(new Date(event.time).getTime(), new Date(want.time).getTime());
    const extensions = Object.fromEntries(Object.entries(event).filter(([name, value]) => !known.includes(name) && value !== undefined));
    assert.deepEqual(extensions, want.extensions);
    const metadata = event.metadata === undefined ? null : JSON.parse(event.metadata);
    assert.deepEqual(metadata && Object.entries(metadata).sort(), want.metadata && Object.entries(want.metadata).sort());
  } catch (error) {
    console.error(`${want.text.slice(0, 600)}\n${error.stack.slice(0, 2000)}\n`);
    process.exitCode = 1;
  }
  read++;
}
console.log(`${read} events read`);

// Reads events with the official JavaScript SDK of CloudEvents, each by itself and all in a batch, and holds what it finds
// to what the caller says: on standard input one JSON object a line, as host/service/cloudevents_node_test.go writes them.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const { HTTP } = createRequire(process.argv[2] + "/")("cloudevents");

const known = ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data", "data_base64", "metadata"];

function read(contentType, body) {
  return HTTP.toEvent({ headers: { "content-type": contentType }, body });
}

function check(event, want) {
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
}

function attempt(want, how) {
  try {
    check(how(), want);
  } catch (error) {
    console.error(`${want.text.slice(0, 600)}\n${error.stack.slice(0, 2000)}\n`);
    process.exitCode = 1;
  }
}

const wanted = [];
for await (const line of createInterface({ input: process.stdin })) {
  const want = JSON.parse(line);
  wanted.push(want);
  attempt(want, () => read("application/cloudevents+json", want.text));
}
const batch = read("application/cloudevents-batch+json", `[${wanted.map((want) => want.text).join(",")}]\n`);
wanted.forEach((want, i) => attempt(want, () => batch[i]));
console.log(`${batch.length} events read`);

// A counter as a Bulkhead service in freestanding C: it adds, never goes below
// zero, can be reset. The state of an entity is one number.
#include "bulkhead.h"

typedef struct { int64_t n; uint8_t open; } entity;

static entity *entities; // by slot
static uint32_t entity_cap;

static bh_bytes bh_manifest(void) {
  return BH_TEXT(
    "{\"abi\":1,\"service\":\"c-counter\",\"version\":\"1.0.0\",\"sdk\":\"bulkhead.h\",\"state_schema\":1,"
    "\"encoding\":\"application/json\",\"commands\":["
    "{\"name\":\"add\",\"input\":{\"type\":\"object\",\"properties\":{\"by\":{\"type\":\"integer\"}},\"required\":[\"by\"]}},"
    "{\"name\":\"reset\",\"input\":{\"type\":\"object\"}}],"
    "\"queries\":[{\"name\":\"value\"}],"
    "\"events\":[{\"name\":\"added\",\"aliases\":[\"increased\"]},{\"name\":\"reset\"}]}");
}

// --- just enough JSON: one integer member of an object ---

typedef struct { const uint8_t *p, *end; } text;

static uint8_t peek(text *t) { // the next character behind white space, 0 at the end
  while (t->p < t->end && (*t->p == ' ' || *t->p == '\t' || *t->p == '\n' || *t->p == '\r')) t->p++;
  return t->p < t->end ? *t->p : 0;
}

static int string(text *t, bh_bytes *s) { // escapes are kept as they are
  if (peek(t) != '"') return 0;
  s->p = ++t->p;
  for (; t->p < t->end && *t->p != '"'; t->p++)
    if (*t->p == '\\' && ++t->p == t->end) return 0;
  if (t->p == t->end) return 0;
  s->n = (uint32_t)(t->p++ - s->p);
  return 1;
}

static int integer(text *t, int64_t *v) { // a whole number that fits, and nothing glued to it
  int negative = peek(t) == '-';
  uint64_t u = 0, most = (uint64_t)INT64_MAX + negative;
  const uint8_t *first = t->p += negative;
  for (; t->p < t->end && *t->p >= '0' && *t->p <= '9'; t->p++) {
    uint32_t digit = *t->p - '0';
    if (u > (most - digit) / 10) return 0;
    u = u * 10 + digit;
  }
  uint8_t next = peek(t);
  if (t->p == first || (next != ',' && next != '}')) return 0;
  *v = (int64_t)(negative ? 0 - u : u);
  return 1;
}

static int skip(text *t) { // any value; brackets must balance
  uint32_t depth = 0;
  bh_bytes s;
  for (;;) {
    uint8_t c = peek(t);
    if (!c) return 0;
    if (!depth && (c == ',' || c == '}')) return 1;
    if (c == '"') { if (!string(t, &s)) return 0; continue; }
    if (!depth && c == ']') return 0;
    if (c == '{' || c == '[') depth++;
    if (c == '}' || c == ']') depth--;
    t->p++;
  }
}

static int is(bh_bytes b, const char *s) {
  uint32_t i = 0;
  while (i < b.n && s[i] && b.p[i] == (uint8_t)s[i]) i++;
  return i == b.n && !s[i];
}

// member finds the integer of that name; 1 found, 0 missing, -1 malformed. With
// name 0 it only checks the object's form.
static int member(bh_bytes body, const char *name, int64_t *v) {
  text t = {body.p, body.p + body.n};
  int found = 0;
  if (peek(&t) != '{') return -1;
  t.p++;
  if (peek(&t) != '}')
    for (;;) {
      bh_bytes key;
      if (!string(&t, &key) || peek(&t) != ':') return -1;
      t.p++;
      if (name && is(key, name)) {
        if (!integer(&t, v)) return -1;
        found = 1;
      } else if (!skip(&t)) return -1;
      if (peek(&t) != ',') break;
      t.p++;
    }
  if (peek(&t) != '}') return -1;
  t.p++;
  return peek(&t) || t.p != t.end ? -1 : found;
}

static bh_bytes object(const char *name, int64_t v) { // {"name":v}; valid until the next one
  static uint8_t buf[64];
  uint8_t digits[20], *o = buf;
  int i = 0;
  uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
  *o++ = '{', *o++ = '"';
  while (*name) *o++ = (uint8_t)*name++;
  *o++ = '"', *o++ = ':';
  if (v < 0) *o++ = '-';
  do digits[i++] = '0' + u % 10; while (u /= 10);
  while (i) *o++ = digits[--i];
  *o++ = '}';
  return (bh_bytes){buf, (uint32_t)(o - buf)};
}

// --- the service ---

static entity *at(uint32_t slot) { return slot < entity_cap && entities[slot].open ? &entities[slot] : 0; }

static entity *make(uint32_t slot) { // a zero entity, or 0 without memory
  if (slot >= entity_cap) {
    uint64_t cap = entity_cap ? entity_cap : 64;
    while (cap <= slot) cap *= 2;
    entity *bigger = bh_alloc(cap * sizeof(entity));
    if (!bigger) return 0;
    bh_copy((uint8_t *)bigger, (uint8_t *)entities, entity_cap * sizeof(entity));
    entities = bigger, entity_cap = (uint32_t)cap;
  }
  entities[slot] = (entity){.open = 1};
  return &entities[slot];
}

static int evolve(entity *e, uint16_t type, bh_bytes body) { // the only code that changes n
  int64_t by, sum;
  switch (type) {
  case 0:
    if (member(body, "by", &by) != 1 || __builtin_add_overflow(e->n, by, &sum)) return 0;
    e->n = sum;
    return 1;
  case 1:
    e->n = 0;
    return 1;
  }
  return 0;
}

static void decide(const bh_request *r, entity *e) {
  int64_t by, sum;
  switch (r->type) {
  case 0: {
    if (member(r->body, "by", &by) != 1) { bh_reject(r, BH_TEXT("bad_command"), BH_TEXT("want {\"by\":integer}")); return; }
    if (__builtin_add_overflow(e->n, by, &sum)) { bh_reject(r, BH_TEXT("too_large"), BH_TEXT("the counter has 63 bits")); return; }
    if (sum < 0) { bh_reject(r, BH_TEXT("below_zero"), BH_TEXT("the counter would go below zero")); return; }
    bh_bytes body = object("by", by);
    bh_event(r, 0, body);
    evolve(e, 0, body); // G21: the guest applies its own events
    bh_reply(r, 1, object("n", e->n));
    return;
  }
  case 1:
    if (member(r->body, 0, 0) < 0) { bh_reject(r, BH_TEXT("bad_command"), BH_TEXT("want an object")); return; }
    if (!e->n) { bh_reply(r, 0, object("n", 0)); return; } // nothing to do is no event
    bh_import_log(BH_INFO, "reset", 5);
    bh_event(r, 1, BH_TEXT("{}"));
    evolve(e, 1, BH_TEXT("{}"));
    bh_reply(r, 1, object("n", e->n));
    return;
  }
  bh_reject(r, BH_TEXT("unknown_type"), BH_TEXT("this service has commands 0 and 1"));
}

static void bh_handle(const bh_request *r) {
  entity *e = r->kind == BH_OPEN ? make(r->slot) : at(r->slot);
  if (r->kind == BH_DROP) {
    if (e) e->open = 0;
    return;
  }
  if (!e) {
    if (r->kind == BH_OPEN) bh_fault(r, BH_TEXT("no_memory"), BH_TEXT("no memory for another entity"));
    else bh_fault(r, BH_TEXT("no_entity"), BH_TEXT("the slot is not open"));
    return;
  }
  switch (r->kind) {
  case BH_OPEN:
    if ((r->flags & BH_FLAG_SNAPSHOT) && (member(r->snapshot, "n", &e->n) != 1 || e->n < 0)) {
      e->open = 0;
      bh_fault(r, BH_TEXT("bad_snapshot"), BH_TEXT("want {\"n\":integer}"));
    }
    break;
  case BH_APPLY:
    if (r->type > 1) bh_fault(r, BH_TEXT("unknown_type"), BH_TEXT("this service has events 0 and 1"));
    else if (!evolve(e, r->type, r->body)) bh_fault(r, BH_TEXT("bad_event"), BH_TEXT("the event does not fit its type"));
    break;
  case BH_COMMAND:
    decide(r, e);
    break;
  case BH_QUERY:
    if (r->type == 0) bh_reply(r, 0, object("n", e->n));
    else bh_reject(r, BH_TEXT("unknown_type"), BH_TEXT("this service has query 0"));
    break;
  case BH_SNAPSHOT:
    bh_snapshot(r, object("n", e->n));
    break;
  }
}

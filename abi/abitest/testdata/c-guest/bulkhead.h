// Bulkhead ABI v1 for freestanding C: one header, no libc. Define bh_handle and
// bh_manifest, include this once, and build with
//
//   clang --target=wasm32-unknown-unknown -O2 -nostdlib -fno-builtin
//         -Wl,--no-entry -Wl,--strip-all -o service.wasm service.c
//
// Rule numbers (G1 ...) are those of SPEC.md.
#pragma once
#include <stdint.h>

#define BH_EXPORT(name) __attribute__((export_name(#name)))
#define BH_IMPORT(name) __attribute__((import_module("bulkhead_v1"), import_name(#name)))

BH_IMPORT(log) void bh_import_log(uint32_t level, const void *p, uint32_t n);
BH_IMPORT(fault) void bh_import_fault(const void *p, uint32_t n);

enum { BH_OPEN = 1, BH_APPLY, BH_COMMAND, BH_QUERY, BH_SNAPSHOT, BH_DROP, BH_DESCRIBE };
enum { BH_EVENT = 1, BH_REPLY, BH_REJECT, BH_FAULT, BH_SNAPSHOT_IS, BH_DESCRIPTION };
enum { BH_DEBUG, BH_INFO, BH_WARN, BH_ERROR };
enum { BH_REQUEST_HEADER = 32, BH_RESPONSE_HEADER = 24, BH_FLAG_SNAPSHOT = 1 };

typedef struct { const uint8_t *p; uint32_t n; } bh_bytes;
#define BH_TEXT(s) ((bh_bytes){(const uint8_t *)(s), sizeof(s) - 1})

// One decoded request. Its bytes are views into the mailbox, gone after the call.
typedef struct {
  uint8_t kind, flags;
  uint16_t type;
  uint32_t slot, index;
  uint64_t version, time;
  bh_bytes key, snapshot, id, metadata, body;
  const uint8_t *seed; // 16 bytes, for BH_COMMAND only
} bh_request;

static void bh_handle(const bh_request *r); // the service answers one frame
static bh_bytes bh_manifest(void);          // the service's manifest, JSON

// The compiler may call these two even without a libc.
__attribute__((weak)) void *memset(void *to, int v, __SIZE_TYPE__ n) {
  for (uint8_t *p = to; n--;) *p++ = (uint8_t)v;
  return to;
}
__attribute__((weak)) void *memcpy(void *to, const void *from, __SIZE_TYPE__ n) {
  const uint8_t *q = from;
  for (uint8_t *p = to; n--;) *p++ = *q++;
  return to;
}

// --- memory: a bump allocator that never frees; callers double and copy ---

extern uint8_t __heap_base;
static uint64_t bh_top;

static void *bh_alloc(uint64_t n) { // 8-aligned zeros, or 0 if memory is exhausted
  if (!bh_top) bh_top = ((uint64_t)(uintptr_t)&__heap_base + 7) & ~7ull;
  uint64_t at = bh_top, end = at + ((n + 7) & ~7ull);
  uint64_t have = (uint64_t)__builtin_wasm_memory_size(0) << 16;
  if (end > 0xffff0000ull || n > 0xffff0000ull) return 0;
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + 0xffff) >> 16) == (uintptr_t)-1) return 0;
  bh_top = end;
  return (void *)(uintptr_t)at;
}

static void bh_copy(uint8_t *to, const uint8_t *from, uint32_t n) {
  while (n--) *to++ = *from++;
}

static _Noreturn void bh_die(bh_bytes message) { // for what no answer can be given to
  bh_import_fault(message.p, message.n);
  __builtin_trap();
}

// --- little-endian fields: as wasm is, so plain unaligned loads and stores ---

typedef struct { uint16_t v; } __attribute__((packed, may_alias)) bh_u16;
typedef struct { uint32_t v; } __attribute__((packed, may_alias)) bh_u32;
typedef struct { uint64_t v; } __attribute__((packed, may_alias)) bh_u64;
static uint16_t bh_get16(const uint8_t *p) { return ((const bh_u16 *)p)->v; }
static uint32_t bh_get32(const uint8_t *p) { return ((const bh_u32 *)p)->v; }
static uint64_t bh_get64(const uint8_t *p) { return ((const bh_u64 *)p)->v; }
static void bh_put16(uint8_t *p, uint16_t v) { ((bh_u16 *)p)->v = v; }
static void bh_put32(uint8_t *p, uint32_t v) { ((bh_u32 *)p)->v = v; }

// --- the answer: a buffer of its own, so that the mailbox stays readable ---

static uint8_t *bh_out;
static uint32_t bh_out_len, bh_out_cap;

static uint8_t *bh_room(uint64_t n) { // room for n more bytes of answer
  uint64_t need = bh_out_len + n, cap = bh_out_cap ? bh_out_cap : 4096;
  if (need > bh_out_cap) {
    while (cap < need) cap *= 2;
    uint8_t *bigger = bh_alloc(cap);
    if (!bigger) bh_die(BH_TEXT("out of memory for the answer"));
    bh_copy(bigger, bh_out, bh_out_len);
    bh_out = bigger, bh_out_cap = (uint32_t)cap;
  }
  return bh_out + bh_out_len;
}

// Every response payload of version 1 has two lengths and two fields.
static void bh_answer(const bh_request *r, uint8_t kind, uint16_t type, uint32_t aux, bh_bytes a, bh_bytes b) {
  uint64_t payload = 8 + (uint64_t)a.n + b.n, length = (BH_RESPONSE_HEADER + payload + 7) & ~7ull;
  uint8_t *f = bh_room(length);
  bh_put32(f, (uint32_t)length);
  f[4] = kind, f[5] = 0;
  bh_put16(f + 6, type);
  bh_put32(f + 8, r->slot);
  bh_put32(f + 12, (uint32_t)payload);
  bh_put32(f + 16, r->index);
  bh_put32(f + 20, aux);
  bh_put32(f + 24, a.n);
  bh_put32(f + 28, b.n);
  bh_copy(f + 32, a.p, a.n);
  bh_copy(f + 32 + a.n, b.p, b.n);
  for (uint8_t *p = f + 32 + a.n + b.n; p < f + length; p++) *p = 0;
  bh_out_len += (uint32_t)length;
}

static void bh_event(const bh_request *r, uint16_t type, bh_bytes body) { bh_answer(r, BH_EVENT, type, 0, body, (bh_bytes){0, 0}); }
static void bh_reply(const bh_request *r, uint32_t events, bh_bytes body) { bh_answer(r, BH_REPLY, 0, events, body, (bh_bytes){0, 0}); }
static void bh_reject(const bh_request *r, bh_bytes code, bh_bytes message) { bh_answer(r, BH_REJECT, 0, 0, code, message); }
static void bh_fault(const bh_request *r, bh_bytes code, bh_bytes message) { bh_answer(r, BH_FAULT, 0, 0, code, message); }
static void bh_snapshot(const bh_request *r, bh_bytes state) { bh_answer(r, BH_SNAPSHOT_IS, 0, 0, state, (bh_bytes){0, 0}); }

// --- decoding: every length is checked before it is used (G20) ---

typedef struct { const uint8_t *p; uint32_t left; int ok; } bh_fields;

static bh_bytes bh_take(bh_fields *f, uint32_t n) {
  if (!f->ok || n > f->left) { f->ok = 0; return (bh_bytes){0, 0}; }
  bh_bytes b = {f->p, n};
  f->p += n, f->left -= n;
  return b;
}

static int bh_decode(bh_request *r, const uint8_t *payload, uint32_t n) {
  static const uint8_t fixed[] = {[BH_OPEN] = 8, [BH_APPLY] = 8, [BH_COMMAND] = 32, [BH_QUERY] = 8, [BH_SNAPSHOT] = 0, [BH_DROP] = 0, [BH_DESCRIBE] = 0};
  bh_fields f = {payload, n, 1};
  bh_take(&f, fixed[r->kind]);
  if (!f.ok) return 0;
  switch (r->kind) {
  case BH_OPEN:
    r->key = bh_take(&f, bh_get32(payload));
    r->snapshot = bh_take(&f, bh_get32(payload + 4));
    break;
  case BH_APPLY:
    r->body = bh_take(&f, bh_get32(payload));
    r->metadata = bh_take(&f, bh_get32(payload + 4));
    break;
  case BH_COMMAND:
    r->seed = payload;
    r->id = bh_take(&f, bh_get32(payload + 16));
    r->metadata = bh_take(&f, bh_get32(payload + 20));
    r->body = bh_take(&f, bh_get32(payload + 24));
    break;
  case BH_QUERY:
    r->body = bh_take(&f, bh_get32(payload));
    break;
  }
  return f.ok; // bytes behind the last known field are for later versions (G19)
}

// --- exports ---

static uint8_t *bh_box;
static uint32_t bh_box_cap;

BH_EXPORT(bulkhead_v1_reserve) uint32_t bulkhead_v1_reserve(uint32_t n) {
  if (n > bh_box_cap || !bh_box) {
    uint64_t cap = bh_box_cap ? bh_box_cap : 4096;
    while (cap < n) cap *= 2;
    uint8_t *bigger = bh_alloc(cap);
    if (!bigger) return 0; // refuses; the old mailbox stays good
    bh_box = bigger, bh_box_cap = (uint32_t)cap;
  }
  return (uint32_t)(uintptr_t)bh_box;
}

BH_EXPORT(bulkhead_v1_call) uint64_t bulkhead_v1_call(uint32_t n) {
  bh_out_len = 0;
  bh_request r = {0};
  for (uint32_t at = 0, index = 0; at < n; index++) {
    const uint8_t *f = bh_box + at;
    uint32_t left = n - at, length = 0;
    r = (bh_request){.index = index};
    if (n <= bh_box_cap && left >= BH_REQUEST_HEADER) length = bh_get32(f);
    if (length < BH_REQUEST_HEADER || length % 8 || length > left || bh_get32(f + 12) > length - BH_REQUEST_HEADER) {
      bh_fault(&r, BH_TEXT("bad_frame"), BH_TEXT("the frame's lengths do not fit the request"));
      break; // where the next frame begins is not known
    }
    at += length;
    r.kind = f[4], r.flags = f[5], r.type = bh_get16(f + 6), r.slot = bh_get32(f + 8);
    r.version = bh_get64(f + 16), r.time = bh_get64(f + 24);
    if (r.kind < BH_OPEN || r.kind > BH_DESCRIBE)
      bh_fault(&r, BH_TEXT("bad_frame"), BH_TEXT("unknown request kind")); // G18
    else if (!bh_decode(&r, f + BH_REQUEST_HEADER, bh_get32(f + 12)))
      bh_fault(&r, BH_TEXT("bad_frame"), BH_TEXT("a field is longer than its payload"));
    else if (r.kind == BH_DESCRIBE)
      bh_answer(&r, BH_DESCRIPTION, 0, 0, bh_manifest(), (bh_bytes){0, 0});
    else
      bh_handle(&r);
  }
  return bh_out_len ? (uint64_t)(uintptr_t)bh_out << 32 | bh_out_len : 0;
}

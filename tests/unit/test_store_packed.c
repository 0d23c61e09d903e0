/* SPDX-License-Identifier: Apache-2.0 */
/* Records and finishes as bytes: every field comes back, and no damaged bytes are believed. */
#include <string.h>
#include "server/store/packed.h"
#include "tests/unit/unit.h"

static struct slice maybe(uint64_t *random, const char *text)
{
    return random_next(random) % 2 ? slice_str(text) : (struct slice){0};
}

static uint64_t maybe_number(uint64_t *random)
{
    return random_next(random) % 2 ? random_next(random) : 0;
}

static struct record any_record(uint64_t *random)
{
    return (struct record){.id = random_next(random) >> 1,
        .queue = slice_str("some.queue"),
        .payload = maybe(random, "payload"),
        .headers = maybe(random, "headers"),
        .tag = maybe(random, ""),
        .unique = maybe(random, "unique"),
        .target = maybe(random, "target"),
        .history = maybe(random, "history"),
        .submitted_ms = random_next(random),
        .due_ms = maybe_number(random),
        .expires_ms = maybe_number(random),
        .unique_ms = maybe_number(random),
        .keep_ms = maybe_number(random),
        .timeout_ms = maybe_number(random),
        .backoff_ms = maybe_number(random),
        .attempts = (uint32_t)random_next(random),
        .max_attempts = (uint32_t)random_next(random),
        .deaths = (uint16_t)random_next(random),
        .priority = (uint8_t)(random_next(random) % 10),
        .followed = random_next(random) % 2,
        .suspect = random_next(random) % 2,
        .windowed = random_next(random) % 2};
}

static void assert_slice(struct slice a, struct slice b)
{
    assert_int_equal(a.data == NULL, b.data == NULL);
    assert_true(slice_equal(a, b));
}

static void assert_record(const struct record *a, const struct record *b)
{
    assert_slice(a->queue, b->queue);
    assert_slice(a->payload, b->payload);
    assert_slice(a->headers, b->headers);
    assert_slice(a->tag, b->tag);
    assert_slice(a->unique, b->unique);
    assert_slice(a->target, b->target);
    assert_slice(a->history, b->history);
    assert_true(a->id == b->id && a->submitted_ms == b->submitted_ms && a->due_ms == b->due_ms);
    assert_true(a->expires_ms == b->expires_ms && a->unique_ms == b->unique_ms);
    assert_true(a->keep_ms == b->keep_ms && a->timeout_ms == b->timeout_ms);
    assert_true(a->backoff_ms == b->backoff_ms && a->attempts == b->attempts);
    assert_true(a->max_attempts == b->max_attempts && a->deaths == b->deaths);
    assert_true(a->priority == b->priority && a->followed == b->followed);
    assert_true(a->suspect == b->suspect && a->windowed == b->windowed);
}

static void records_come_back_and_cut_ones_do_not(void **state)
{
    uint64_t random = random_seed();
    (void)state;
    for (int i = 0; i < 2000; i++) {
        struct record in = any_record(&random);
        struct packed_state given = {(uint8_t)random_next(&random), random_next(&random) % 2};
        struct packed_state told;
        struct record out;
        size_t size = record_packed_size(&in);
        uint8_t *bytes = malloc(size);
        record_pack(bytes, &in, given);
        assert_true(record_unpack(bytes, size, &out, &told));
        assert_record(&in, &out);
        assert_true(told.boot == given.boot && told.expiry_told == given.expiry_told);
        size_t cut = random_next(&random) % size;
        uint8_t *part = malloc(cut ? cut : 1); /* of its own, for the sanitizer */
        memcpy(part, bytes, cut);
        assert_false(record_unpack(part, cut, &out, NULL));
        free(part);
        free(bytes);
    }
}

static void a_body_is_packed_as_its_size(void **state)
{
    struct body *body = body_copy("twelve bytes", 12);
    struct record in = {
        .id = 1, .queue = slice_str("q"), .body = body, .payload = body_slice(body)};
    struct record out;
    uint8_t bytes[128];
    uint8_t again[128];
    (void)state;
    size_t size = record_packed_size(&in);
    assert_true(size < 48);
    record_pack(bytes, &in, (struct packed_state){0});
    assert_true(record_unpack(bytes, size, &out, NULL));
    assert_true(slice_detached(out.payload) && out.payload.size == 12 && !out.body);
    assert_int_equal(record_packed_size(&out), size);
    record_pack(again, &out, (struct packed_state){0});
    assert_memory_equal(bytes, again, size);
    body_unref(body);
}

static void finishes_come_back(void **state)
{
    struct finish in = {.id = 9,
        .status = 2,
        .code = 60,
        .attempts = 3,
        .run_ns = 1234,
        .finished_ms = 5,
        .keep_until_ms = 6,
        .result = slice_str("result"),
        .text = slice_str("text"),
        .history = slice_str("history"),
        .dead = true};
    struct finish out;
    uint8_t bytes[256];
    (void)state;
    finish_pack(bytes, &in);
    size_t size = finish_packed_size(&in);
    assert_true(finish_unpack(bytes, size, &out));
    assert_true(out.id == 9 && out.status == 2 && out.code == 60 && out.attempts == 3 && out.dead);
    assert_true(out.run_ns == 1234 && out.finished_ms == 5 && out.keep_until_ms == 6);
    assert_slice(out.result, in.result);
    assert_slice(out.text, in.text);
    assert_slice(out.tag, in.tag);
    assert_slice(out.history, in.history);
    assert_false(finish_unpack(bytes, size - 1, &out));
    in = (struct finish){.id = 9, .text = slice_str("nobody wants it")};
    assert_int_equal(finish_packed_size(&in), sizeof(uint64_t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(records_come_back_and_cut_ones_do_not),
        cmocka_unit_test(a_body_is_packed_as_its_size), cmocka_unit_test(finishes_come_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

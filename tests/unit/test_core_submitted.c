/* SPDX-License-Identifier: Apache-2.0 */
/* A task as it was submitted: LIST of `submitted` and of `options`. */
#include <string.h>
#include "proto/codec.h"
#include "tests/unit/core_durable.h"

static struct durable d;

static void ask(uint64_t conn, const char *what, uint64_t id)
{
    core_list(d.f.core, conn, &(struct msg_list){.request = 3, .what = S(what), .after = id});
}

static const struct submitted *told(uint64_t conn)
{
    const struct conn_action *a = fix_conn(&d.f, conn, MSG_SUBMITTED, 0);
    assert_non_null(a);
    const struct conn_action *end = fix_conn(&d.f, conn, MSG_END, 0);
    assert_non_null(end);
    assert_int_equal(((const struct msg_end *)end->row)->rows, 1);
    return a->row;
}

static int refused(uint64_t conn)
{
    assert_null(fix_conn(&d.f, conn, MSG_SUBMITTED, 0));
    const struct conn_action *a = fix_conn(&d.f, conn, MSG_REJECTED, 0);
    assert_non_null(a);
    return (int)a->code;
}

/* Asks, and goes on until there is an answer; its tick is over. */
static void answered(const char *what, uint64_t id)
{
    fix_later(&d.f, 1);
    ask(6, what, id);
    durable_end(&d);
    if (!d.f.acts->conn_count) {
        durable_stored(&d, 1);
        durable_end(&d);
    }
}

static struct msg_options options_of(const struct submitted *s)
{
    struct msg_options o;
    struct dec in = dec_of(s->row.options);
    assert_int_equal(dec_message(&in), MSG_OPTIONS);
    assert_true(msg_options_decode(&in, &o));
    return o;
}

static uint64_t submit_body(const char *queue, struct body *body, const struct msg_options *o)
{
    struct submit s = {.request = 77, .queue = S(queue), .body = body, .options = o};
    uint64_t id;
    core_submit(d.f.core, 5, &s, 1, &id);
    assert_int_not_equal(id, 0);
    return id;
}

static struct body *large(void)
{
    struct body *body = body_new(3 << 20);
    assert_non_null(body);
    for (size_t i = 0; i < body->size; i++)
        body->data[i] = (uint8_t)(i * 7 + (i >> 8));
    return body;
}

/* The task is leased by worker 0; it fails for good, and the tick is over. */
static void fail_for_good(uint64_t id)
{
    uint64_t lease = durable_lease(&d, 0, id);
    fix_later(&d.f, 1);
    struct answer failed = fix_failed(id, lease, "no");
    failed.permanent = true;
    fix_answer(&d.f, 0, failed);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
}

static const uint8_t headers[] = {0x81, 0xa1, 'a', 0xa1, 'b'};

static struct msg_options all_options(void)
{
    return (struct msg_options){.priority = 7,
        .delay_ms = 5000,
        .timeout_ms = 30000,
        .expires_ms = 60000,
        .max_attempts = 5,
        .backoff_ms = 700,
        .unique_key = S("key"),
        .unique_ms = 90000,
        .worker = S("w9"),
        .keep_ms = 1234,
        .tag = S("tag"),
        .headers = slice_of(headers, sizeof headers)};
}

static void options_are_right(struct msg_options o, uint64_t eta_ms)
{
    assert_int_equal(o.priority, 7);
    assert_int_equal(o.delay_ms, 0);
    assert_int_equal(o.eta_ms, eta_ms);
    assert_int_equal(o.timeout_ms, 30000);
    assert_int_equal(o.expires_ms, 60000);
    assert_int_equal(o.max_attempts, 5);
    assert_int_equal(o.backoff_ms, 700);
    assert_true(slice_equal(o.unique_key, S("key")));
    assert_int_equal(o.unique_ms, 90000);
    assert_true(slice_equal(o.worker, S("w9")));
    assert_int_equal(o.keep_ms, 1234);
    assert_false(o.attached);
    assert_true(slice_equal(o.tag, S("tag")));
    assert_true(slice_equal(o.headers, slice_of(headers, sizeof headers)));
}

/* Delayed ones are in the store only, with one behind them and without. */
static void options_come_as_they_were_given(void **state)
{
    (void)state;
    struct msg_options o = all_options();
    durable_new(&d, 0, DURABILITY_SYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "a\nb", &o, FOLLOW_NONE);
    uint64_t eta_ms = d.f.now.wall_ms + 5000;
    durable_settle(&d);
    fix_end(&d.f);
    fix_later(&d.f, 10);
    fix_end(&d.f);
    answered("submitted", id);
    const struct submitted *s = told(6);
    assert_int_equal(s->row.request, 3);
    assert_int_equal(s->row.id, id);
    assert_true(slice_equal(s->row.queue, S("q")));
    assert_true(slice_equal(s->row.payload, S("a\nb")));
    options_are_right(options_of(s), eta_ms);
    answered("options", id);
    assert_null(told(6)->row.payload.data);
    options_are_right(options_of(told(6)), eta_ms);
    durable_free(&d);
}

static void so_they_do_from_memory(void **state)
{
    (void)state;
    struct msg_options o = all_options();
    struct durable none = {0};
    d = none;
    fix_new(&d.f, NULL);
    uint64_t id = fix_submit(&d.f, 5, "q", "", &o, FOLLOW_NONE);
    ask(6, "submitted", id);
    fix_end(&d.f);
    options_are_right(options_of(told(6)), d.f.now.wall_ms + 5000);
    assert_non_null(told(6)->row.payload.data); /* empty, and there */
    assert_int_equal(told(6)->row.payload.size, 0);
    fix_free(&d.f);
}

/* No copy is made; and it stays until it is written, though its task ends in the same tick. */
static void a_large_payload_is_lent(void **state)
{
    (void)state;
    struct body *body = large();
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = submit_body("q", body, NULL);
    const uint8_t *data = body->data;
    body_unref(body);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    uint64_t lease = durable_lease(&d, 0, id);
    fix_later(&d.f, 1);
    ask(6, "submitted", id);
    fix_answer(&d.f, 0, fix_done(id, lease, "r"));
    durable_end(&d);
    assert_ptr_equal(told(6)->row.payload.data, data);
    assert_ptr_equal(told(6)->body->data, data);
    assert_int_equal(data[1000], (uint8_t)(7000 + 3));
    durable_stored(&d, 1);
    durable_settle(&d);
    durable_end(&d);
    durable_free(&d);
}

static void of_a_dead_task_it_is_all_there(void **state)
{
    (void)state;
    struct body *body = large();
    struct msg_options o = all_options();
    o.delay_ms = 0;
    o.worker = (struct slice){0};
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = submit_body("q", body, &o);
    durable_end(&d);
    durable_stored(&d, 1);
    durable_end(&d);
    fail_for_good(id);
    answered("submitted", id);
    assert_true(slice_equal(told(6)->row.payload, body_slice(body)));
    struct msg_options dead = options_of(told(6));
    assert_int_equal(dead.eta_ms, 0);
    assert_int_equal(dead.expires_ms, 60000);
    assert_int_equal(dead.unique_ms, 90000);
    answered("options", id);
    assert_null(told(6)->row.payload.data);
    body_unref(body);
    durable_free(&d);
}

static void of_one_that_has_ended_otherwise_it_is_not(void **state)
{
    (void)state;
    struct msg_options o = fix_options();
    o.keep_ms = 60000;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t lease, id = durable_leased(&d, &lease, &o);
    fix_later(&d.f, 1);
    fix_answer(&d.f, 0, fix_done(id, lease, "result"));
    durable_end(&d);
    answered("submitted", id); /* while its follower is told */
    assert_int_equal(refused(6), PUSHROD_E_WRONG_STATE);
    fix_later(&d.f, 1);
    core_conn_closed(d.f.core, 5);
    durable_settle(&d);
    fix_end(&d.f);
    answered("submitted", id); /* kept in the store */
    assert_int_equal(refused(6), PUSHROD_E_WRONG_STATE);
    answered("options", id + 1);
    assert_int_equal(refused(6), PUSHROD_E_UNKNOWN_TASK);
    answered("submitted", 0);
    assert_int_equal(refused(6), PUSHROD_E_UNKNOWN_TASK);
    durable_free(&d);
}

/* A dead letter of a queue that keeps nothing; and what takes its payload's place when it is done.
 */
static void without_a_store_it_is_the_same(void **state)
{
    (void)state;
    struct msg_options o = fix_options();
    struct durable none = {0};
    o.keep_ms = 60000;
    d = none;
    fix_new(&d.f, NULL);
    fix_worker(&d.f, 0, "q", 2);
    uint64_t dead = fix_submit(&d.f, 5, "q", "payload", NULL, FOLLOW_NONE);
    uint64_t done = fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
    fix_end(&d.f);
    struct answer failed = fix_failed(dead, durable_lease(&d, 0, dead), "no");
    uint64_t lease = durable_lease(&d, 0, done);
    failed.permanent = true;
    fix_later(&d.f, 1);
    ask(7, "submitted", done); /* it runs */
    fix_answer(&d.f, 0, failed);
    fix_answer(&d.f, 0, fix_done(done, lease, "result"));
    ask(6, "submitted", dead);
    ask(5, "submitted", done);
    fix_end(&d.f);
    assert_true(slice_equal(told(7)->row.payload, S("payload")));
    assert_true(slice_equal(told(6)->row.payload, S("payload")));
    assert_int_equal(refused(5), PUSHROD_E_WRONG_STATE);
    fix_free(&d.f);
}

static void it_comes_from_behind_the_window(void **state)
{
    (void)state;
    struct body *body = large();
    durable_new(&d, 2, DURABILITY_SYNC);
    uint64_t id = 0;
    for (unsigned i = 0; i < 6; i++)
        id = submit_body("q", body, NULL);
    durable_settle(&d);
    fix_end(&d.f);
    fix_later(&d.f, 1);
    ask(6, "submitted", id);
    durable_end(&d);
    assert_true(durable_op(&d, STORE_LOOKUP, 0)->payload);
    assert_false(durable_op(&d, STORE_LOOKUP, 0)->bare);
    durable_stored(&d, 1);
    durable_end(&d);
    assert_true(slice_equal(told(6)->row.payload, body_slice(body)));
    answered("options", id);
    assert_null(told(6)->row.payload.data);
    durable_restart(&d);
    durable_settle(&d);
    fix_end(&d.f);
    answered("submitted", id);
    assert_true(slice_equal(told(6)->row.payload, body_slice(body)));
    body_unref(body);
    durable_free(&d);
}

/* It waits for its time, out of memory. */
static uint64_t stored_only(void)
{
    struct msg_options o = fix_options();
    o.delay_ms = 60000;
    durable_begin(&d, DURABILITY_SYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "payload", &o, FOLLOW_NONE);
    durable_settle(&d);
    return id;
}

static size_t lookups(void)
{
    size_t count = 0;
    while (durable_op(&d, STORE_LOOKUP, count))
        count++;
    return count;
}

/* A few bytes ask for megabytes: so many are on their way, and those of who left no more. */
static void who_asks_for_many_waits(void **state)
{
    (void)state;
    uint64_t id = stored_only();
    for (unsigned i = 0; i < 2000; i++)
        ask(6, "submitted", id);
    fix_end(&d.f);
    assert_int_equal(lookups(), 20);
    assert_int_equal(refused(6), PUSHROD_E_OVERLOADED);
    const struct store_op first = *durable_op(&d, STORE_LOOKUP, 0);
    durable_say(&d, &first, OUTCOME_LATER, PUSHROD_E_OK); /* there was no room for it */
    ask(7, "submitted", id);
    fix_end(&d.f);
    assert_int_equal(lookups(), 1);
    assert_true(durable_op(&d, STORE_LOOKUP, 0)->payload);
    assert_int_equal(refused(7), PUSHROD_E_OVERLOADED);
    fix_later(&d.f, 1);
    core_conn_closed(d.f.core, 6);
    fix_end(&d.f);
    durable_say(&d, &first, OUTCOME_LATER, PUSHROD_E_OK);
    ask(7, "submitted", id);
    fix_end(&d.f);
    assert_int_equal(lookups(), 1); /* of the other one */
    assert_null(fix_conn(&d.f, 6, MSG_REJECTED, 0));
    durable_free(&d);
}

/* The same of what is in memory: by its size, for each is said again. */
static void so_does_who_asks_for_much(void **state)
{
    (void)state;
    struct body *body = large();
    struct durable none = {0};
    d = none;
    fix_new(&d.f, NULL);
    uint64_t id = submit_body("q", body, NULL);
    body_unref(body);
    for (unsigned i = 0; i < 100; i++)
        ask(6, "submitted", id);
    fix_end(&d.f);
    size_t count = 0;
    while (fix_conn(&d.f, 6, MSG_SUBMITTED, count))
        count++;
    assert_in_range(count, 5, 10);
    assert_int_equal(fix_conn(&d.f, 6, MSG_REJECTED, 0)->code, PUSHROD_E_OVERLOADED);
    fix_free(&d.f);
}

static void a_store_that_fails_is_said(void **state)
{
    (void)state;
    uint64_t id = stored_only();
    ask(6, "submitted", id);
    fix_end(&d.f);
    durable_say(&d, durable_op(&d, STORE_LOOKUP, 0), OUTCOME_REFUSED, PUSHROD_E_STORE_FAILED);
    fix_end(&d.f);
    assert_int_equal(refused(6), PUSHROD_E_STORE_FAILED);
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_come_as_they_were_given),
        cmocka_unit_test(so_they_do_from_memory),
        cmocka_unit_test(a_large_payload_is_lent),
        cmocka_unit_test(of_a_dead_task_it_is_all_there),
        cmocka_unit_test(of_one_that_has_ended_otherwise_it_is_not),
        cmocka_unit_test(without_a_store_it_is_the_same),
        cmocka_unit_test(it_comes_from_behind_the_window),
        cmocka_unit_test(who_asks_for_many_waits),
        cmocka_unit_test(so_does_who_asks_for_much),
        cmocka_unit_test(a_store_that_fails_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <limits.h>
#include <string.h>
#include <pthread.h>

#include <pushrod/error.h>
#include <pushrod/task.h>
#include "common/body.h"
#include "common/buf.h"
#include "common/clock.h"
#include "proto/frame.h"

static void buf_grows_and_keeps(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    for (unsigned i = 0; i < 10000; i++) {
        uint8_t byte = (uint8_t)(i * 7);
        buf_append(&b, &byte, 1);
    }
    assert_int_equal(b.size, 10000);
    assert_true(b.capacity < 20000 + 256);
    for (unsigned i = 0; i < 10000; i++)
        assert_int_equal(b.data[i], (uint8_t)(i * 7));
    buf_consume(&b, 9999);
    assert_int_equal(b.size, 1);
    assert_int_equal(b.data[0], (uint8_t)(9999 * 7));
    buf_consume(&b, 0);
    buf_clear(&b);
    assert_int_equal(b.size, 0);
    buf_free(&b);
    assert_null(b.data);
}

static void buf_empty_needs_nothing(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    buf_append(&b, NULL, 0);
    buf_consume(&b, 0);
    assert_null(b.data);
    assert_non_null(buf_reserve(&b, 0));
    assert_int_equal(b.size, 0);
    buf_free(&b);
}

static void buf_failure_is_sticky(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    buf_append(&b, "ab", 2);
    assert_null(buf_reserve(&b, SIZE_MAX / 2));
    assert_true(b.failed);
    buf_append(&b, "c", 1);
    assert_null(buf_reserve(&b, 1));
    assert_int_equal(b.size, 2);
    buf_clear(&b);
    buf_append(&b, "d", 1);
    assert_int_equal(b.size, 1);
    buf_free(&b);
}

static void buf_printf_appends(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    buf_printf(&b, "%s-%d", "x", 5);
    buf_printf(&b, "%300s", "end");
    assert_int_equal(b.size, 303);
    assert_memory_equal(b.data, "x-5", 3);
    assert_memory_equal(b.data + 300, "end", 3);
    assert_int_equal(b.size, 303);
    buf_free(&b);
    assert_null(b.data);
}

static void buf_text_ends_and_does_not_count_its_end(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    assert_string_equal(buf_text(&b), "");
    buf_printf(&b, "a");
    assert_string_equal(buf_text(&b), "a");
    buf_printf(&b, "b");
    assert_string_equal(buf_text(&b), "ab");
    assert_int_equal(b.size, 2);
    assert_null(buf_reserve(&b, SIZE_MAX));
    assert_string_equal(buf_text(&b), "");
    buf_free(&b);
}

static void frame_holds_its_length(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    buf_append(&b, "before", 6);
    size_t begin = frame_begin(&b);
    buf_append(&b, "0123456789", 10);
    frame_end(&b, begin);
    assert_int_equal(b.size, 20);
    assert_int_equal(frame_size(b.data + 6), 10);
    uint8_t head[FRAME_HEAD];
    frame_head(head, 0xfedcba98u);
    assert_int_equal(head[0], 0xfe);
    assert_int_equal(frame_size(head), 0xfedcba98u);
    /* A failed buffer is left alone. */
    assert_null(buf_reserve(&b, SIZE_MAX / 2));
    frame_end(&b, frame_begin(&b));
    assert_int_equal(b.size, 20);
    buf_free(&b);
}

static void *unref_many(void *arg)
{
    for (int i = 0; i < 10000; i++)
        body_unref(arg);
    return NULL;
}

static void body_is_counted_by_threads(void **state)
{
    (void)state;
    pthread_t threads[2];
    struct body *b = body_copy("payload", 7);
    assert_memory_equal(body_slice(b).data, "payload", 7);
    for (int i = 0; i < 20000; i++)
        assert_ptr_equal(body_ref(b), b);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, unref_many, b), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&b->references), 1);
    body_unref(b);
    body_unref(NULL);
    assert_null(body_ref(NULL));
    assert_null(body_slice(NULL).data);
    assert_null(body_new(SIZE_MAX));
}

static void errors_have_texts(void **state)
{
    (void)state;
    assert_string_equal(pushrod_strerror(0), "no error");
    assert_string_equal(pushrod_strerror(-PUSHROD_E_QUEUE_FULL), "the queue is full");
    assert_string_equal(pushrod_error_name(PUSHROD_E_QUEUE_FULL), "QUEUE_FULL");
    assert_string_equal(pushrod_strerror(12345), "unknown error");
    assert_string_equal(pushrod_error_name(INT32_MIN), "UNKNOWN");
    assert_string_equal(pushrod_status_name(PUSHROD_EXPIRED), "expired");
    assert_string_equal(pushrod_status_name(0), "unknown");
}

static void clock_goes_forward(void **state)
{
    (void)state;
    struct now first = clock_now(), second = clock_now();
    assert_true(second.mono_ns >= first.mono_ns);
    /* Later than 2020, earlier than 2500: milliseconds, not another unit. */
    assert_in_range(first.wall_ms, UINT64_C(1577836800000), UINT64_C(16725225600000));
}

static void clock_waits_are_rounded_up(void **state)
{
    (void)state;
    assert_int_equal(clock_wait_ms(0, UINT64_MAX), -1);
    assert_int_equal(clock_wait_ms(5 * NS_PER_MS, 0), 0);
    assert_int_equal(clock_wait_ms(5 * NS_PER_MS, 5 * NS_PER_MS), 0);
    assert_int_equal(clock_wait_ms(5 * NS_PER_MS, 5 * NS_PER_MS + 1), 1);
    assert_int_equal(clock_wait_ms(5 * NS_PER_MS, 7 * NS_PER_MS), 2);
    assert_int_equal(clock_wait_ms(0, UINT64_MAX - 1), INT_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_grows_and_keeps),
        cmocka_unit_test(buf_empty_needs_nothing),
        cmocka_unit_test(buf_failure_is_sticky),
        cmocka_unit_test(buf_printf_appends),
        cmocka_unit_test(buf_text_ends_and_does_not_count_its_end),
        cmocka_unit_test(frame_holds_its_length),
        cmocka_unit_test(body_is_counted_by_threads),
        cmocka_unit_test(errors_have_texts),
        cmocka_unit_test(clock_goes_forward),
        cmocka_unit_test(clock_waits_are_rounded_up),
    };
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* C functions as handlers: what they see, what they answer, and that batches of them are fed. */
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "proto/codec.h"
#include "tests/lib/run_play.h"
#include "worker/worker.h"

static struct run_play p;
static atomic_bool go_on;

static void begin_with(pushrod_handler handler, void *arg, struct run_config config)
{
    struct handler h = {.ops = &handler_function, .function = handler, .arg = arg};
    atomic_store(&go_on, false);
    run_play_start(&p, h, config);
}

static void begin(pushrod_handler handler)
{
    begin_with(handler, NULL, (struct run_config){0});
}

static int echo(struct pushrod_task *task, void *arg)
{
    size_t size;
    const void *data = pushrod_task_payload(task, &size);
    assert_ptr_equal(arg, &p);
    assert_int_equal(pushrod_task_progress(task, 1, 2, "half"), 0);
    /* The wire carries integers below 2^63. */
    assert_int_equal(pushrod_task_progress(task, 1, UINT64_MAX, NULL), -PUSHROD_E_INVALID);
    assert_int_equal(pushrod_task_progress(task, UINT64_MAX, 1, NULL), -PUSHROD_E_INVALID);
    pushrod_task_emit(task, "chunk", 5);
    pushrod_task_result(task, "overwritten", 11);
    return pushrod_task_result(task, data, size);
}

static void the_last_result_wins(void **state)
{
    (void)state;
    begin_with(echo, &p, (struct run_config){0});
    struct outcome *o = run_play_do(&p, "hello");
    assert_int_equal(o->kind, REPORT_DONE);
    assert_string_equal((char *)o->result.data, "hello");
    assert_int_equal(o->progress, 1);
    assert_memory_equal(o->data.data, "chunk", 5);
    run_play_stop(&p);
}

static int look(struct pushrod_task *task, void *arg)
{
    (void)arg;
    char text[200];
    int size =
        snprintf(text, sizeof text, "%llu %u %s %s %s", (unsigned long long)pushrod_task_id(task),
            pushrod_task_attempt(task), pushrod_task_queue(task), pushrod_task_header(task, "b"),
            pushrod_task_header(task, "c") ? "?" : "none");
    assert_true(pushrod_task_remaining_ms(task) == UINT64_MAX);
    assert_false(pushrod_task_cancelled(task));
    return pushrod_task_result(task, text, (size_t)size);
}

static void it_sees_its_task(void **state)
{
    (void)state;
    struct buf headers = BUF_EMPTY;
    enc_map(&headers, 2);
    enc_text(&headers, slice_str("a"));
    enc_text(&headers, slice_str(""));
    enc_text(&headers, slice_str("b"));
    enc_text(&headers, slice_str("value"));
    begin(look);
    uint64_t lease = run_play_give_like(&p, (struct attempt){.id = 42,
                                                .number = 2,
                                                .queue = {(const uint8_t *)"q.x", 3},
                                                .headers = buf_slice(&headers)});
    assert_string_equal((char *)run_play_wait(&p, lease)->result.data, "42 2 q.x value none");
    run_play_stop(&p);
    buf_free(&headers);
}

static int fail_as_told(struct pushrod_task *task, void *arg)
{
    (void)arg;
    size_t size;
    const char *how = pushrod_task_payload(task, &size);
    if (*how == 'f')
        return pushrod_task_fail(task, "for good");
    if (*how == 'R') /* more than the wire can carry */
        return pushrod_task_retry_after(task, UINT64_MAX, "never");
    if (*how == 'r')
        return pushrod_task_retry_after(task, 1234, "later");
    return 17;
}

static void it_fails_in_three_ways(void **state)
{
    (void)state;
    begin(fail_as_told);
    struct outcome *o = run_play_do(&p, "f");
    assert_true(o->kind == REPORT_FAILED && o->permanent);
    assert_string_equal(o->text, "for good");
    o = run_play_do(&p, "r");
    assert_true(!o->permanent && o->retry_ms == 1234);
    o = run_play_do(&p, "R");
    assert_true(!o->permanent && o->retry_ms == UINT64_C(3155760000000));
    o = run_play_do(&p, "x");
    assert_string_equal(o->text, "the handler returned 17");
    run_play_stop(&p);
}

static int too_much(struct pushrod_task *task, void *arg)
{
    (void)arg;
    static const char bytes[2000];
    assert_int_equal(pushrod_task_result(task, bytes, 1000), 0);
    assert_int_equal(pushrod_task_result(task, bytes, 1001), -PUSHROD_E_RESULT_TOO_BIG);
    return 0;
}

static void too_large_a_result_fails_whatever_it_returns(void **state)
{
    (void)state;
    begin_with(too_much, NULL, (struct run_config){.max_result = 1000});
    assert_int_equal(run_play_do(&p, "")->code, PUSHROD_E_RESULT_TOO_BIG);
    run_play_stop(&p);
}

static int until_cancelled(struct pushrod_task *task, void *arg)
{
    (void)arg;
    pushrod_task_progress(task, 1, 0, NULL);
    while (!pushrod_task_cancelled(task))
        ;
    return -1;
}

static bool saw_progress(void *arg)
{
    return ((struct outcome *)arg)->progress > 0;
}

static void it_is_told_of_cancel_and_timeout(void **state)
{
    (void)state;
    begin(until_cancelled);
    uint64_t lease = run_play_give(&p, "", 0);
    run_play_until(&p, saw_progress, &p.outcomes[lease - 1]);
    run_cancel(p.run, lease);
    assert_int_equal(run_play_wait(&p, lease)->code, PUSHROD_E_TASK_CANCELLED);
    lease = run_play_give_like(&p, (struct attempt){.timeout_ms = 30});
    assert_int_equal(run_play_wait(&p, lease)->code, PUSHROD_E_TASK_TIMEOUT);
    run_play_stop(&p);
}

static int until_let(struct pushrod_task *task, void *arg)
{
    (void)arg;
    pushrod_task_progress(task, 1, 0, NULL);
    while (!atomic_load(&go_on))
        ;
    return 0;
}

static bool is_overdue(void *arg)
{
    uint64_t run_ns;
    return run_overdue(p.run, clock_now().mono_ns, &run_ns) == *(uint64_t *)arg;
}

static void who_does_not_obey_is_seen(void **state)
{
    (void)state;
    begin_with(until_let, NULL, (struct run_config){.grace_ms = 50});
    uint64_t lease = run_play_give_like(&p, (struct attempt){.timeout_ms = 20});
    run_play_until(&p, saw_progress, &p.outcomes[lease - 1]);
    assert_true(run_watched(p.run));
    run_play_until(&p, is_overdue, &lease);
    assert_false(run_free(p.run, 10)); /* nothing was freed */
    atomic_store(&go_on, true);
    run_play_stop(&p);
}

static void what_has_not_begun_can_be_taken_back(void **state)
{
    (void)state;
    begin(until_let);
    uint64_t runs = run_play_give(&p, "", 0);
    run_play_until(&p, saw_progress, &p.outcomes[runs - 1]);
    uint64_t second = run_play_give(&p, "", 0);
    uint64_t third = run_play_give(&p, "", 0);
    assert_false(run_revoke(p.run, runs));
    assert_true(run_revoke(p.run, third));
    assert_true(run_revoke(p.run, second));
    assert_false(run_revoke(p.run, second));
    uint64_t fourth = run_play_give(&p, "", 0);
    atomic_store(&go_on, true);
    assert_int_equal(run_play_wait(&p, runs)->kind, REPORT_DONE);
    assert_int_equal(run_play_wait(&p, fourth)->kind, REPORT_DONE);
    assert_int_equal(p.ended, 2);
    run_play_stop(&p);
}

static int nothing(struct pushrod_task *task, void *arg)
{
    (void)task;
    (void)arg;
    return 0;
}

/* Waits for the descriptor alone: a wake-up that is forgotten is a failure, not a delay. */
static struct report *take_when_told(struct run *run)
{
    struct pollfd f = {.fd = run_fd(run), .events = POLLIN};
    assert_int_equal(poll(&f, 1, 60000), 1);
    return run_take(run);
}

/* All are handed in, in batches, while outcomes come back; no order between slots is promised. */
static void feed(unsigned slots, size_t rounds)
{
    static struct attempt attempts[1000];
    const struct attempt *batch[100];
    static struct handler h = {
        .ops = &handler_function, .function = nothing, .pattern = (char *)(uintptr_t) "q"};
    struct run_config c = {.slots = slots, .ahead = 1000, .handlers = &h, .handler_count = 1};
    struct run *run = run_new(&c);
    size_t out = 0, in = 0, free_count = 0;
    const struct attempt *spare[1000];
    for (uint64_t i = 0; i < 1000; i++) {
        attempts[i] = (struct attempt){.id = i + 1, .lease = i + 1, .queue = slice_str("q")};
        spare[free_count++] = &attempts[i];
    }
    while (out < rounds * 100) {
        while (in < rounds * 100 && free_count >= 100) {
            for (size_t i = 0; i < 100; i++)
                batch[i] = spare[--free_count];
            run_start(run, batch, 100);
            in += 100;
        }
        for (struct report *r = take_when_told(run), *next; r; r = next) {
            next = r->next;
            spare[free_count++] = r->task->attempt;
            out++;
            run_release(run, r);
        }
    }
    assert_int_equal(free_count, 1000);
    assert_true(run_free(run, 20000));
}

static void batches_go_through(void **state)
{
    (void)state;
    feed(1, 1000);
    feed(3, 1000);
}

static atomic_size_t emitted;

static int flood(struct pushrod_task *task, void *arg)
{
    static const char chunk[65536];
    (void)arg;
    int error = 0;
    for (int i = 0; i < 1000 && !error; i++) {
        pushrod_task_progress(task, 1, 0, NULL);
        error = pushrod_task_emit(task, chunk, sizeof chunk);
        atomic_fetch_add(&emitted, error ? 0 : sizeof chunk);
    }
    return error;
}

/* A server that does not take what is emitted: nobody takes the reports. */
static void what_nobody_takes_is_bounded(void **state)
{
    (void)state;
    atomic_store(&emitted, 0);
    begin_with(flood, NULL, (struct run_config){.slots = 2});
    struct attempt limited = {.timeout_ms = 100};
    uint64_t late = run_play_give_like(&p, limited);
    uint64_t lease = run_play_give(&p, "", 0);
    while (!run_overdue(p.run, clock_mono_ns() + UINT64_C(3600000000000), &(uint64_t){0}))
        sched_yield();
    while (run_watched(p.run)) /* the one with a timeout has ended, though it had to wait */
        sched_yield();
    assert_in_range(atomic_load(&emitted), 4 << 20, 5 << 20);
    run_cancel(p.run, lease);
    assert_int_equal(run_play_wait(&p, late)->code, PUSHROD_E_TASK_TIMEOUT);
    assert_int_equal(run_play_wait(&p, lease)->code, PUSHROD_E_TASK_CANCELLED);
    run_play_stop(&p);
}

static atomic_bool ahead;

/* With `ahead` the wall clock is an hour ahead of what the kernel has: as if it were set back. */
int clock_gettime(clockid_t clock, struct timespec *to)
{
    long rc = syscall(SYS_clock_gettime, clock, to);
    to->tv_sec += clock == CLOCK_REALTIME && atomic_load(&ahead) ? 3600 : 0;
    return (int)rc;
}

static void who_waits_for_room_does_not_depend_on_the_wall_clock(void **state)
{
    (void)state;
    begin_with(flood, NULL, (struct run_config){0});
    atomic_store(&ahead, true);
    uint64_t late = run_play_give_like(&p, (struct attempt){.timeout_ms = 100});
    uint64_t end_ns = clock_mono_ns() + UINT64_C(10000000000);
    while (!run_watched(p.run))
        sched_yield();
    while (run_watched(p.run) && clock_mono_ns() < end_ns)
        sched_yield();
    assert_false(run_watched(p.run));
    atomic_store(&ahead, false);
    assert_int_equal(run_play_wait(&p, late)->code, PUSHROD_E_TASK_TIMEOUT);
    run_play_stop(&p);
}

static void a_flood_that_is_taken_arrives(void **state)
{
    (void)state;
    begin(flood);
    struct outcome *o = run_play_do(&p, "");
    assert_int_equal(o->kind, REPORT_DONE);
    assert_int_equal(o->data.size, 1000 * 65536);
    run_play_stop(&p);
}

static void what_is_no_handler_is_an_error(void **state)
{
    struct pushrod_worker *w = pushrod_worker_new();
    (void)state;
    assert_int_equal(pushrod_worker_handle(w, "q", NULL, NULL), -PUSHROD_E_INVALID);
    assert_non_null(strstr(pushrod_worker_error(w), "handler"));
    assert_int_equal(pushrod_worker_handle(w, NULL, echo, NULL), -PUSHROD_E_INVALID);
    assert_int_equal(pushrod_worker_handle(w, "a b", echo, NULL), -PUSHROD_E_BAD_QUEUE);
    assert_int_equal(pushrod_worker_handle(w, "q", echo, NULL), 0);
    assert_int_equal(pushrod_worker_handle(w, "q", echo, NULL), -PUSHROD_E_DUPLICATE);
    pushrod_worker_free(w);
}

/* Its handler may bear no other call beside it. */
static void a_program_has_one_slot_unless_it_asks(void **state)
{
    struct pushrod_worker *w = pushrod_worker_new();
    (void)state;
    assert_int_equal(worker_slots(w), 1);
    assert_int_equal(pushrod_worker_set(w, "slots", "0"), 0);
    assert_int_equal(worker_slots(w), cpus_usable());
    assert_int_equal(pushrod_worker_set(w, "slots", "3"), 0);
    assert_int_equal(worker_slots(w), 3);
    pushrod_worker_free(w);
}

int main(void)
{
    log_setup("test", LOG_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_result_wins),
        cmocka_unit_test(it_sees_its_task),
        cmocka_unit_test(it_fails_in_three_ways),
        cmocka_unit_test(too_large_a_result_fails_whatever_it_returns),
        cmocka_unit_test(it_is_told_of_cancel_and_timeout),
        cmocka_unit_test(who_does_not_obey_is_seen),
        cmocka_unit_test(what_has_not_begun_can_be_taken_back),
        cmocka_unit_test(batches_go_through),
        cmocka_unit_test(what_is_no_handler_is_an_error),
        cmocka_unit_test(a_program_has_one_slot_unless_it_asks),
        cmocka_unit_test(what_nobody_takes_is_bounded),
        cmocka_unit_test(who_waits_for_room_does_not_depend_on_the_wall_clock),
        cmocka_unit_test(a_flood_that_is_taken_arrives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

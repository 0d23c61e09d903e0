/* SPDX-License-Identifier: Apache-2.0 */
/* What STATUS says of a task, and LIST of queues and workers. */
#include "tests/unit/core_durable.h"

static struct fix f;

static const struct msg_task_row *status(uint64_t id)
{
    core_status(f.core, 5, 2, id);
    fix_end(&f);
    const struct conn_action *a = fix_conn(&f, 5, MSG_TASK_ROW, 0);
    assert_non_null(a);
    return a->row;
}

/* A backoff goes by the monotonic clock, and people's clocks do not. */
static void a_backoff_in_memory_says_when_it_ends(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    struct answer failed = fix_failed(id, fix_lane(&f, 0, LANE_TASK, 0)->lease, "no");
    failed.number = 700; /* ms: to be tried again then */
    fix_later(&f, 1);
    fix_answer(&f, 0, failed);
    uint64_t due_ms = f.now.wall_ms + 700;
    fix_end(&f);
    fix_later(&f, 300);
    const struct msg_task_row *row = status(id);
    assert_true(slice_equal(row->state, S("delayed")));
    assert_int_equal(row->due_ms, due_ms);
    fix_free(&f);
}

/* A short result takes the payload's place: that is not shown for it. */
static void a_payload_shows_how_it_begins(void **state)
{
    (void)state;
    char large[3000];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    fix_new(&f, NULL);
    uint64_t small = fix_submit(&f, 5, "q", "payload", NULL, FOLLOW_FINISH);
    uint64_t more = fix_submit(&f, 5, "p", large, NULL, FOLLOW_NONE);
    fix_tick(&f);
    fix_later(&f, 1);
    assert_true(slice_equal(status(small)->head, S("payload")));
    fix_later(&f, 1);
    assert_true(slice_equal(status(more)->head, slice_of(large, 1024)));
    fix_later(&f, 1);
    fix_worker(&f, 0, "q", 1);
    fix_tick(&f);
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_done(small, fix_lane(&f, 0, LANE_TASK, 0)->lease, "result"));
    const struct msg_task_row *row = status(small);
    assert_true(slice_equal(row->state, S("done")));
    assert_int_equal(row->head.size, 0);
    fix_free(&f);
}

static size_t rows_of(const char *what, const char *filter, uint64_t after, uint16_t kind)
{
    struct msg_list m = {.request = 3, .what = S(what), .filter = S(filter), .after = after};
    core_list(f.core, 5, &m);
    fix_end(&f);
    size_t count = 0;
    for (size_t i = 0; i < f.acts->conn_count; i++)
        count += f.acts->conn[i].kind == kind;
    assert_non_null(fix_conn(&f, 5, MSG_END, 0));
    fix_later(&f, 1);
    return count;
}

/* More than a page holds: the next one begins where it ended, and what is new comes last. */
static void all_queues_are_listed(void **state)
{
    (void)state;
    char name[16];
    fix_new(&f, NULL);
    for (unsigned i = 0; i < 1500; i++) {
        snprintf(name, sizeof name, "%s.%u", i % 2 ? "odd" : "even", i);
        fix_submit(&f, 5, name, "", NULL, FOLLOW_NONE);
    }
    assert_int_equal(rows_of("queues", NULL, 0, MSG_QUEUE_ROW), 1000);
    fix_submit(&f, 5, "new", "", NULL, FOLLOW_NONE);
    assert_int_equal(rows_of("queues", NULL, 1000, MSG_QUEUE_ROW), 501);
    assert_int_equal(rows_of("queues", "odd.*", 700, MSG_QUEUE_ROW), 50);
    assert_int_equal(rows_of("queues", NULL, 1501, MSG_QUEUE_ROW), 0);
    fix_free(&f);
}

static void workers_are_listed_by_name(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    for (unsigned n = 0; n < 3; n++)
        fix_worker(&f, n, "q", 1);
    assert_int_equal(rows_of("workers", NULL, 0, MSG_WORKER_ROW), 3);
    assert_int_equal(rows_of("workers", "w1", 0, MSG_WORKER_ROW), 1);
    assert_int_equal(rows_of("workers", "w*", f.worker[1], MSG_WORKER_ROW), 1);
    assert_int_equal(rows_of("workers", "x*", 0, MSG_WORKER_ROW), 0);
    fix_free(&f);
}

/* By id over all workers; what waits is not among them. */
static void what_workers_have_is_listed(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    fix_worker(&f, 0, "*", 2);
    fix_worker(&f, 1, "*", 2);
    uint64_t ids[5];
    for (unsigned i = 0; i < 5; i++)
        ids[i] = fix_submit(&f, 5, i % 2 ? "odd" : "even", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    uint64_t since_ms = f.now.wall_ms;
    fix_later(&f, 300);
    assert_int_equal(rows_of("running", NULL, 0, MSG_TASK_ROW), 4);
    const struct msg_task_row *row = fix_conn(&f, 5, MSG_TASK_ROW, 0)->row;
    assert_int_equal(row->id, ids[0]);
    assert_int_equal(row->since_ms, since_ms);
    assert_true(row->worker.size > 0);
    assert_int_equal(rows_of("running", NULL, ids[1], MSG_TASK_ROW), 2);
    assert_int_equal(rows_of("running", "odd", 0, MSG_TASK_ROW), 2);
    assert_int_equal(rows_of("running", "none", 0, MSG_TASK_ROW), 0);
    assert_int_equal(status(ids[4])->since_ms, 0);
    fix_free(&f);
}

static const struct msg_event *told(struct msg_control m)
{
    fix_later(&f, 1);
    core_control(f.core, 6, &m);
    fix_end(&f);
    return fix_conn(&f, 5, MSG_EVENT, 0)->row;
}

/* Whoever asks may name it as he likes: of what is no name nothing is passed on. */
static void who_watches_hears_of_names_only(void **state)
{
    (void)state;
    fix_new(&f, NULL);
    core_watch(f.core, 5, 9, true);
    fix_end(&f);
    const struct msg_event *e = told((struct msg_control){.verb = S("pause"), .name = S("q")});
    assert_true(slice_equal(e->queue, S("q")));
    e = told((struct msg_control){.verb = S("drain"), .name = S("w1")});
    assert_true(slice_equal(e->worker, S("w1")));
    e = told((struct msg_control){.verb = S("pause"), .name = S("\33[2J")});
    assert_null(e->queue.data);
    assert_true(slice_equal(e->text, S("pause")));
    e = told((struct msg_control){.verb = S("drain"), .name = S("\33[2J")});
    assert_null(e->worker.data);
    fix_free(&f);
}

static void say_progress(uint64_t id, uint64_t lease, uint64_t done, const char *text)
{
    fix_answer(&f, 0,
        (struct answer){.kind = MSG_PROGRESS,
            .id = id,
            .lease = lease,
            .number = done,
            .total = 10,
            .data = S(text)});
}

/* Who comes late hears of it, and who asks; with the attempt it is over. */
static void progress_is_kept_while_an_attempt_runs(void **state)
{
    (void)state;
    static char text[202]; /* two bytes of a character would be within the bound, one behind it */
    memset(text, 'x', 199);
    memcpy(text + 199, "\xc3\xa4", 2);
    fix_new(&f, NULL);
    fix_worker(&f, 0, "q", 1);
    uint64_t id = fix_submit(&f, 5, "q", "", NULL, FOLLOW_NONE);
    fix_end(&f);
    uint64_t lease = fix_lane(&f, 0, LANE_TASK, 0)->lease;
    fix_later(&f, 1);
    say_progress(id, lease, 2, "pages");
    say_progress(id, lease, 3, text);
    const struct msg_task_row *row = status(id);
    assert_int_equal(row->done, 3);
    assert_int_equal(row->total, 10);
    assert_true(slice_equal(row->progress, slice_of(text, 199)));
    fix_later(&f, 1);
    core_wait(f.core, 6, 1, id, FOLLOW_ALL);
    core_wait(f.core, 7, 1, id, FOLLOW_FINISH);
    fix_end(&f);
    const struct conn_action *told = fix_conn(&f, 6, MSG_TASK_PROGRESS, 0);
    assert_non_null(told);
    assert_int_equal(((const struct msg_task_progress *)told->row)->done, 3);
    assert_null(fix_conn(&f, 7, MSG_TASK_PROGRESS, 0));
    fix_later(&f, 1);
    fix_answer(&f, 0, fix_failed(id, lease, "no"));
    assert_int_equal(status(id)->done, 0);
    fix_later(&f, 1);
    fix_free(&f);
}

/* Ids go on behind the block of the life before: nobody knows how much of that was used. */
static void an_id_of_a_former_life_may_be_none(void **state)
{
    (void)state;
    struct durable d;
    durable_new(&d, 0, DURABILITY_SYNC);
    uint64_t id = fix_submit(&d.f, 5, "q", "", NULL, FOLLOW_NONE);
    durable_settle(&d);
    durable_restart(&d);
    core_wait(d.f.core, 5, 1, id + 1, FOLLOW_FINISH);
    durable_end(&d);
    durable_stored(&d, 1);
    fix_end(&d.f);
    const struct conn_action *no = fix_conn(&d.f, 5, MSG_REJECTED, 0);
    assert_int_equal(no->code, PUSHROD_E_UNKNOWN_TASK);
    assert_non_null(strstr(no->text, "it finished"));
    assert_non_null(strstr(no->text, "never issued"));
    durable_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_of_a_former_life_may_be_none),
        cmocka_unit_test(a_backoff_in_memory_says_when_it_ends),
        cmocka_unit_test(a_payload_shows_how_it_begins),
        cmocka_unit_test(all_queues_are_listed),
        cmocka_unit_test(workers_are_listed_by_name),
        cmocka_unit_test(what_workers_have_is_listed),
        cmocka_unit_test(who_watches_hears_of_names_only),
        cmocka_unit_test(progress_is_kept_while_an_attempt_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

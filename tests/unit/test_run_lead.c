/* SPDX-License-Identifier: Apache-2.0 */
/* Which thread steps the loop of a worker: the slot's while its attempts are short (run_lead.c). */
#include "tests/unit/unit.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "common/clock.h"
#include "worker/run_impl.h"

#define ATTEMPTS 64

/* A worker whose loop starts an attempt, or a batch, with each step, as if a message had come. */
struct play {
    struct run *run;
    struct attempt attempts[ATTEMPTS];
    struct handler handler;
    pthread_t owner;
    sem_t hold;     /* a handler that is to block waits for it */
    atomic_uint at; /* attempts that have begun */
    unsigned wanted, block_at, started, reported, by_slot, by_owner;
    bool over;                   /* the next step is the last */
    unsigned batch;              /* that start together, when those before were reported; 0: 1 */
    uint64_t number;             /* of the attempts */
    unsigned looked, unreported; /* attempts that the leader began; when others were not reported */
};

/* The leader alone counts reports, so that it may read the count. */
static void look(struct play *p, unsigned before)
{
    pthread_mutex_lock(&p->run->lock);
    if (p->run->lead.slot) {
        p->looked++;
        p->unreported += p->reported != before;
    }
    pthread_mutex_unlock(&p->run->lock);
}

static int handle(struct pushrod_task *task, void *arg)
{
    struct play *p = arg;
    (void)task;
    unsigned before = atomic_fetch_add(&p->at, 1);
    look(p, before);
    if (before + 1 == p->block_at)
        sem_wait(&p->hold);
    return 0;
}

static void take(struct play *p)
{
    for (struct report *r = run_take(p->run), *next; r; r = next) {
        next = r->next;
        assert_int_equal(r->kind, REPORT_DONE);
        p->reported++;
        run_release(p->run, r);
    }
}

static void start(struct play *p)
{
    struct attempt *a = &p->attempts[p->started++];
    const struct attempt *one = a;
    *a = (struct attempt){
        .lease = p->started, .id = p->started, .number = p->number, .queue = slice_str("q")};
    run_start(p->run, &one, 1);
}

static bool step(void *arg, bool wait)
{
    struct play *p = arg;
    bool slots = !pthread_equal(pthread_self(), p->owner);
    p->by_slot += slots;
    p->by_owner += !slots;
    take(p);
    (void)wait;
    if (p->started == p->wanted)
        return !p->over || p->reported < p->started;
    if (p->started == p->reported) {
        do
            start(p);
        while (p->batch && p->started % p->batch && p->started < p->wanted);
    }
    return true;
}

static void begin_with(
    struct play *p, unsigned wanted, pushrod_handler function, bool (*step_)(void *, bool))
{
    *p = (struct play){.wanted = wanted, .number = 1, .owner = pthread_self()};
    sem_init(&p->hold, 0, 0);
    p->handler = (struct handler){.ops = &handler_function,
        .pattern = (char *)(uintptr_t) "*",
        .function = function,
        .arg = p};
    p->run = run_new(&(struct run_config){.slots = 1,
        .ahead = ATTEMPTS - 1,
        .handlers = &p->handler,
        .handler_count = 1,
        .step = step_,
        .step_arg = p});
    assert_non_null(p->run);
}

static void begin(struct play *p, unsigned wanted)
{
    begin_with(p, wanted, handle, step);
}

static void end(struct play *p)
{
    assert_true(run_free(p->run, 20000));
    sem_destroy(&p->hold);
}

/* The owner's loop until `reported` are. On a busy machine any attempt may lose the lead. */
static void lead_until(struct play *p, unsigned reported)
{
    while (p->reported < reported) {
        p->run->last_ns = 0; /* that it was long is another test */
        run_offer_lead(p->run);
        run_await_lead(p->run);
        take(p); /* it came just before the lead was taken */
        struct pollfd fd = {.fd = run_fd(p->run), .events = POLLIN};
        if (p->reported < reported && p->started > p->reported)
            assert_int_equal(poll(&fd, 1, 20000), 1);
        run_quiet(p->run);
        take(p);
    }
}

/* What was read by the slot's thread is run by it. */
static void slot_leads_while_attempts_are_short(void **state)
{
    struct play p;
    (void)state;
    begin(&p, ATTEMPTS);
    p.over = true;
    lead_until(&p, ATTEMPTS);
    assert_true(p.by_slot > 0);
    assert_int_equal(p.by_owner, 0);
    end(&p);
}

/* The owner's thread goes on meanwhile, and hears of the end. It keeps the lead after what was
 * long. */
static void handler_that_goes_on_loses_the_lead(void **state)
{
    struct play p;
    (void)state;
    begin(&p, 3);
    p.block_at = 3;
    lead_until(&p, 2);
    while (atomic_load(&p.at) < 3) {
        p.run->last_ns = 0;
        run_offer_lead(p.run);
        run_await_lead(p.run);
    }
    assert_int_equal(p.started, 3);
    assert_int_equal(p.reported, 2); /* the third does not come back */
    unsigned led = p.by_slot;
    run_offer_lead(p.run); /* something is outstanding: it stays here */
    run_await_lead(p.run);
    sem_post(&p.hold);
    struct pollfd fd = {.fd = run_fd(p.run), .events = POLLIN};
    assert_int_equal(poll(&fd, 1, 20000), 1);
    run_quiet(p.run);
    take(&p);
    assert_int_equal(p.reported, 3);
    run_offer_lead(p.run); /* it was long: here, too */
    run_await_lead(p.run);
    assert_int_equal(p.by_slot, led);

    p.wanted = 5;
    p.over = true;
    lead_until(&p, 5);
    assert_true(p.by_slot > led);
    end(&p);
}

/* A step of the loop that has all attempts begin at once. */
static bool step_of_batch(void *arg, bool wait)
{
    struct play *p = arg;
    take(p);
    if (!wait && p->reported < p->started)
        p->by_slot += !pthread_equal(pthread_self(), p->owner);
    while (p->started < p->wanted)
        start(p);
    return p->reported < p->wanted;
}

static int handle_for_a_while(struct pushrod_task *task, void *arg)
{
    (void)task;
    (void)arg;
    uint64_t until_ns = clock_mono_ns() + 100000;
    while (clock_mono_ns() < until_ns)
        ;
    return 0;
}

/* What comes meanwhile does not wait for the end of a long queue. On a busy machine the owner's
 * thread may lead before the first step: then once more. */
static void leader_looks_up_from_a_long_queue(void **state)
{
    struct play p;
    (void)state;
    for (unsigned turn = 0, seen = 0; !seen; turn++) {
        assert_true(turn < 50);
        begin_with(&p, ATTEMPTS, handle_for_a_while, step_of_batch);
        lead_until(&p, ATTEMPTS);
        seen = p.by_slot;
        end(&p);
    }
}

/* The owner ends the runner while it leads and a handler blocks. */
static void owner_can_end_while_a_handler_blocks(void **state)
{
    struct play p;
    (void)state;
    begin(&p, 1);
    p.block_at = 1;
    run_offer_lead(p.run);
    run_await_lead(p.run);
    assert_int_equal(atomic_load(&p.at), 1);
    assert_false(run_free(p.run, 1));
    sem_post(&p.hold);
    end(&p);
}

/* What ends the process takes along the answers that are still in it, and the server would suspect
 * somebody else. */
static void answers_leave_before_what_was_handed_over_again(void **state)
{
    struct play p;
    (void)state;
    begin(&p, ATTEMPTS);
    p.over = true;
    p.batch = 16;
    p.number = 2;
    lead_until(&p, ATTEMPTS);
    assert_true(p.looked > 0);
    assert_int_equal(p.unreported, 0);
    end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slot_leads_while_attempts_are_short),
        cmocka_unit_test(handler_that_goes_on_loses_the_lead),
        cmocka_unit_test(leader_looks_up_from_a_long_queue),
        cmocka_unit_test(owner_can_end_while_a_handler_blocks),
        cmocka_unit_test(answers_leave_before_what_was_handed_over_again),
    };
    return cmocka_run_group_tests_name("run_lead", tests, NULL, NULL);
}

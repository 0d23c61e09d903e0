/* SPDX-License-Identifier: Apache-2.0 */
/* The runner of a worker: handlers of every outcome and duration, drawn from the seed. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

enum outcome { END_DONE, END_FAILED, END_PERMANENT, END_BROKEN, END_CRASH, END_TIMEOUT, END_TALK };

static struct run *run_find(struct node *n, uint64_t lease)
{
    for (size_t i = 0; i < n->run_count; i++) {
        if (n->runs[i].lease == lease)
            return &n->runs[i];
    }
    return NULL;
}

static void run_remove(struct node *n, struct run *run, uint64_t ns)
{
    run->sub->running -= run->begun_ns != 0;
    n->changed_ns = ns;
    memmove(run, run + 1, (--n->run_count - (size_t)(run - n->runs)) * sizeof *run);
}

static enum outcome draw_outcome(struct sim *sim, const struct sub *sub)
{
    const struct plan *p = &sim->plan;
    if (sub->poison)
        return END_CRASH;
    if (sim->over)
        return END_DONE;
    if (sim_chance(sim, p->fails))
        return END_FAILED;
    if (sim_chance(sim, p->permanent))
        return END_PERMANENT;
    return sim_chance(sim, p->broken) ? END_BROKEN : END_DONE;
}

static uint64_t draw_duration(struct sim *sim)
{
    const struct plan *p = &sim->plan;
    if (!sim->over && sim_chance(sim, p->hangs))
        return sim_between(sim, 1000, 20000) * MS;
    uint64_t most = sim_chance(sim, 5) ? p->run_ns * 10 : p->run_ns * 2;
    return sim_between(sim, p->run_ns / 10, most);
}

/* An event of a handler reaches the session in its loop, like everything else. */
static void run_later(
    struct sim *sim, int node, uint64_t lease, uint64_t delay, enum outcome outcome)
{
    struct event *e = sim_send(sim, node, NULL, delay, runner_on_event);
    e->a = lease;
    e->b = outcome;
}

static void run_begin(struct sim *sim, int node, struct run *run)
{
    struct node *n = &sim->nodes[node];
    bool endless = !sim->over && sim_chance(sim, sim->plan.endless);
    uint64_t duration = endless ? UINT64_MAX : draw_duration(sim);
    enum outcome outcome = draw_outcome(sim, run->sub);
    run->begun_ns = n->changed_ns = sim->now.mono_ns + 1;
    sim_trace(sim, "%s: runs task %llu, lease %llx, %.3f ms, outcome %d", n->name,
        (unsigned long long)run->id, (unsigned long long)run->lease, (double)duration / 1e6,
        outcome);
    truth_run(sim, run->sub, run->id);
    if (sim_chance(sim, sim->plan.talks))
        run_later(sim, node, run->lease, endless ? sim->plan.run_ns : duration / 2, END_TALK);
    if (run->timeout_ms && duration > run->timeout_ms * MS) {
        duration = run->timeout_ms * MS;
        outcome = END_TIMEOUT;
        if (sim_chance(sim, 20) && !sim->over)
            duration = endless ? UINT64_MAX : duration + 10000 * MS; /* it does not obey */
    }
    run->endless = duration == UINT64_MAX;
    sim->totals.endless += run->endless;
    if (!run->endless)
        run_later(sim, node, run->lease, duration, outcome);
}

/* Begins what waits for a slot, in order. */
void runner_begin(struct sim *sim, int node)
{
    struct node *n = &sim->nodes[node];
    size_t running = 0;
    for (size_t i = 0; i < n->run_count; i++)
        running += n->runs[i].begun_ns != 0;
    for (size_t i = 0; i < n->run_count && running < n->slots; i++) {
        if (!n->runs[i].begun_ns) {
            run_begin(sim, node, &n->runs[i]);
            running++;
        }
    }
}

static void take_start(struct sim *sim, struct node *n, const struct attempt *a)
{
    SIM_CHECK(sim, n->run_count < n->slots + n->ahead, "%s was told to run %zu tasks at once",
        n->name, n->run_count + 1);
    SIM_CHECK(sim, !run_find(n, a->lease), "%s was told twice to run one lease", n->name);
    struct run *run = array_add((void **)&n->runs, &n->run_count, &n->run_room, sizeof *run);
    *run =
        (struct run){a->lease, a->id, a->timeout_ms, truth_sub(sim, a->payload), 0, false, false};
}

void runner_take(struct sim *sim, int node, const struct run_action *action)
{
    struct node *n = &sim->nodes[node];
    const struct attempt *a = action->attempt;
    struct run *run = run_find(n, a->lease);
    if (action->kind == RUN_START) {
        take_start(sim, n, a);
    } else if (action->kind == RUN_CANCEL && run && !run->cancelled) {
        run->cancelled = true;
        if (!run->begun_ns || sim_chance(sim, 70))
            run_later(sim, node, a->lease, sim_below(sim, 5 * MS), END_FAILED);
    } else if (action->kind == RUN_REVOKE) {
        struct event *e = sim_send(sim, node, NULL, sim_below(sim, MS), runner_on_revoke);
        e->a = a->lease;
    }
}

void runner_on_revoke(struct sim *sim, struct event *event)
{
    struct node *n = &sim->nodes[event->node];
    struct run *run = run_find(n, event->a);
    bool waits = run && !run->begun_ns;
    if (waits)
        run_remove(n, run, sim->now.mono_ns);
    if (run)
        session_revoked(n->session, event->a, waits);
}

/* ---- how a handler ends ---- */

static void end_done(struct sim *sim, struct node *n, const struct run *run, uint64_t run_ns)
{
    struct body *result = result_new(sim, run->id, run->lease);
    run->sub->done++;
    run->sub->doer = (int)(n - sim->nodes);
    run->sub->doer_life = n->life;
    session_done(n->session, run->lease, run_ns, body_slice(result));
    body_unref(result);
}

static void end_failed(struct sim *sim, struct node *n, const struct run *run, enum outcome outcome)
{
    struct attempt_failure failure = {.code = PUSHROD_E_TASK_FAILED,
        .permanent = outcome == END_PERMANENT,
        .retry_ms = sim_chance(sim, 20) ? sim_between(sim, 1, 500) : 0,
        .text = slice_str("it did not work")};
    if (run->cancelled)
        failure.code = PUSHROD_E_TASK_CANCELLED;
    else if (outcome == END_TIMEOUT)
        failure.code = PUSHROD_E_TASK_TIMEOUT;
    run->sub->retries++;
    session_failed(n->session, run->lease, sim->now.mono_ns - run->begun_ns, &failure);
}

static void talk(struct node *n, const struct run *run)
{
    session_progress(n->session, run->lease, 1, 2, slice_str("half"));
    session_data(n->session, run->lease, slice_str("a chunk"));
}

void runner_on_event(struct sim *sim, struct event *event)
{
    struct node *n = &sim->nodes[event->node];
    struct run *run = run_find(n, event->a);
    enum outcome outcome = (enum outcome)event->b;
    if (outcome == END_BROKEN && sim->over)
        outcome = END_DONE; /* it was drawn before the faults ended */
    if (!run)
        return; /* it ended otherwise */
    if (outcome == END_TALK) {
        talk(n, run);
        return;
    }
    if (outcome == END_CRASH) {
        n->crash = true; /* after this tick: the session is in use */
        return;
    }
    sim_trace(sim, "%s: ends task %llu, outcome %d", n->name, (unsigned long long)run->id, outcome);
    struct run ended = *run;
    run_remove(n, run, sim->now.mono_ns);
    if (outcome == END_DONE) {
        end_done(sim, n, &ended, sim->now.mono_ns - ended.begun_ns);
    } else if (outcome == END_BROKEN) {
        n->lame = true;
        ended.sub->retries++;
        session_broken(n->session, ended.lease, slice_str("no such program"));
    } else {
        end_failed(sim, n, &ended, outcome);
    }
}

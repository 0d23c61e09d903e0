/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who leads: the thread that steps the owner's loop (run_config.step), which waits for what comes.
 * Leader/Followers (Schmidt et al., POSA 2), for a process with one slot: while its attempts are
 * short the slot's thread leads, and runs itself what it has read. That saves two wake-ups of a
 * thread for each task. When a handler is not back after LEAD_NS the owner's thread leads, as it
 * always does with more slots: no handler can block the loop.
 *
 * One of them leads at a time, and the lead passes under run.lock: so all that belongs to the loop
 * needs no lock of its own.
 */
#include <assert.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/bell.h"
#include "common/clock.h"
#include "worker/run_impl.h"

/* A handler of the leader that runs longer loses the lead. */
#define LEAD_NS UINT64_C(1000000)
/* The slot's thread leads again when the last attempt took no longer. */
#define SHORT_NS UINT64_C(200000)
/* A leader runs attempts for so long before it looks at what came meanwhile. */
#define STEP_NS UINT64_C(200000)

/* -------------------------------------------------------- on the slot's thread */

bool lead_is_slots(struct run *run)
{
    pthread_mutex_lock(&run->lock);
    bool slots = run->lead.slot;
    pthread_mutex_unlock(&run->lock);
    return slots;
}

/*
 * What was handed over before may have ended a process. Answers that are still here end with it,
 * and the server then suspects the first of those that ended well: with many short ones in front,
 * one death after the other. So they leave before it begins.
 */
static bool may_end_us(const struct pushrod_task *task)
{
    return task->attempt->number > 1;
}

bool lead_is_due(const struct run *run, uint64_t now_ns)
{
    if (!run->lead.slot)
        return false;
    if (!run->head)
        return true;
    uint64_t since_ns = now_ns - run->lead.stepped_ns;
    return since_ns >= STEP_NS || (since_ns && may_end_us(run->head));
}

void lead_step(struct run *run, bool wait)
{
    struct lead *lead = &run->lead;
    assert(lead->slot);
    lead->begin_ns = 0;
    pthread_mutex_unlock(&run->lock);
    bool more = run->config.step(run->config.step_arg, wait);
    pthread_mutex_lock(&run->lock);
    lead->stepped_ns = clock_mono_ns();
    lead->slot = more;
    if (!more)
        bell_ring(lead->relief);
}

static void arm(const struct lead *lead, uint64_t at_ns)
{
    struct itimerspec when = {.it_value = clock_timespec(at_ns)};
    timerfd_settime(lead->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* A timer that runs already looks after this attempt as well: no system call for each. */
void lead_begin(struct run *run, uint64_t now_ns)
{
    struct lead *lead = &run->lead;
    lead->begin_ns = now_ns;
    if (!lead->slot || lead->armed)
        return;
    lead->armed = true;
    arm(lead, now_ns + LEAD_NS);
}

/* ------------------------------------------------------- on the owner's thread */

/* Once nothing is outstanding: so it is at the head of its loop, or will be in a moment. */
void run_offer_lead(struct run *run)
{
    if (!run->config.step || run->given || run->last_ns > SHORT_NS)
        return;
    pthread_mutex_lock(&run->lock);
    run->lead.slot = true;
    run->lead.begin_ns = 0;
    pthread_cond_signal(&run->more);
    pthread_mutex_unlock(&run->lock);
}

/* The timer has expired: if the attempt has run for long enough the lead is taken, else it is given
 * the rest of its time. */
static void lead_judge(struct lead *lead)
{
    uint64_t until_ns = lead->begin_ns + LEAD_NS;
    lead->armed = false;
    if (!lead->begin_ns)
        return;
    if (clock_mono_ns() >= until_ns) {
        lead->slot = false;
        return;
    }
    lead->armed = true;
    arm(lead, until_ns);
}

void run_await_lead(struct run *run)
{
    struct lead *lead = &run->lead;
    struct pollfd fds[] = {
        {.fd = lead->timer, .events = POLLIN}, {.fd = lead->relief, .events = POLLIN}};
    uint64_t count;
    pthread_mutex_lock(&run->lock);
    while (lead->slot) {
        pthread_mutex_unlock(&run->lock);
        poll(fds, 2, -1);
        pthread_mutex_lock(&run->lock);
        if (read(lead->timer, &count, sizeof count) > 0)
            lead_judge(lead);
    }
    pthread_mutex_unlock(&run->lock);
}

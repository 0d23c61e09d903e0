/* SPDX-License-Identifier: Apache-2.0 */
/*
 * answers: the PULL that all workers push to, and who said what.
 *
 * Who speaks is known by the authenticated User-Id; FROM has to say the same. Each answer of a
 * session is taken once and in order: what was taken before is dropped, and behind a gap nothing
 * is taken, for the worker sends again whatever was not acknowledged.
 */
#include <inttypes.h>
#include <zmq.h>

#include "common/log.h"
#include "common/retry.h"
#include "server/net/lane.h"
#include "server/net/plane_internal.h"

#define ANSWERS_BATCH  256u
#define ANSWERS_BUDGET (1u << 20) /* bytes for one wake-up, before others have their turn */
#define ANSWERS_COST   64u        /* bytes that a message counts for beside its own */

static void answers_garbage(struct plane *plane, struct speaker *speaker, const char *why)
{
    static struct log_limit limit;
    char more[LOG_MORE];
    plane->stats.garbage++;
    if (log_allowed(&limit, more))
        log_warning("worker %" PRIu64 " is cut, its answers make no sense: %s%s", speaker->worker,
            why, more);
    speaker->cut = true;
    zap_forget(plane->zap, speaker->user);
    if (speaker->lane)
        lane_cut(speaker->lane, PUSHROD_E_BAD_MESSAGE);
}

/* Of a batch in sequence, the place of the first that was not taken before. */
static size_t answers_skip(
    struct plane *plane, const struct speaker *speaker, const struct answer *answers, size_t count)
{
    uint64_t next = speaker->taken + 1, first = answers[0].sequence;
    if (first > next) {
        plane->stats.gaps += count;
        return count;
    }
    size_t old = next - first < count ? (size_t)(next - first) : count;
    plane->stats.repeated += old;
    return old;
}

/*
 * The worker's frame, batch by batch, as far as the budget goes; true: something is left. The lane
 * may be closed by what its answers bring about.
 */
static bool answers_take(struct plane *plane, struct speaker *speaker, struct answer_frame *frame)
{
    struct answer answers[ANSWERS_BATCH];
    const uint8_t *begun = frame->dec.at;
    size_t given = 0;
    while (dec_more(&frame->dec)) {
        size_t count = answer_frame_read(frame, answers, ANSWERS_BATCH);
        size_t old = count ? answers_skip(plane, speaker, answers, count) : 0;
        if (old < count) {
            given += count - old;
            speaker->taken = answers[count - 1].sequence;
            plane->events.answers(
                plane->arg, speaker->worker, speaker->session, answers + old, count - old);
        }
        if ((size_t)(frame->dec.at - begun) > ANSWERS_BUDGET && dec_more(&frame->dec))
            return true;
    }
    struct answer beat = {.kind = MSG_HEARTBEAT};
    if (answer_frame_error(frame))
        answers_garbage(plane, speaker, answer_frame_error(frame));
    else if (frame->beat)
        plane->events.answers(plane->arg, speaker->worker, speaker->session, &beat, 1);
    else if (given == 0)
        plane->events.answers(plane->arg, speaker->worker, speaker->session, answers, 0);
    return false;
}

/* False: it is not taken. */
static bool answers_open(struct plane *plane, struct speaker *speaker, zmq_msg_t *message)
{
    struct answer_frame *frame = &plane->frame;
    if (speaker->lane)
        lane_heard(speaker->lane);
    if (zmq_msg_more(message))
        answers_garbage(plane, speaker, "a frame is one message part");
    else if (!answer_frame_open(frame, slice_of(zmq_msg_data(message), zmq_msg_size(message))))
        answers_garbage(plane, speaker, answer_frame_error(frame));
    else if (frame->from.worker != speaker->worker || frame->from.session != speaker->session)
        answers_garbage(plane, speaker, "FROM names somebody else");
    else
        return true;
    return false;
}

/* The message at hand, from its beginning or from where the budget ended. */
static void answers_message(struct plane *plane)
{
    zmq_msg_t *message = &plane->message;
    const char *user = zmq_msg_gets(message, "User-Id");
    struct speaker *speaker = user ? strmap_get(&plane->speakers, slice_str(user)) : NULL;
    bool opened = plane->unread;
    plane->unread = false;
    if (!speaker)
        plane->stats.stale++;
    else if (!speaker->cut && (opened || answers_open(plane, speaker, message)))
        plane->unread = answers_take(plane, speaker, &plane->frame);
    if (!plane->unread)
        zmq_msg_close(message);
}

static bool answers_receive(struct plane *plane)
{
    zmq_msg_init(&plane->message);
    int size = RETRY(zmq_msg_recv(&plane->message, plane->answers.socket, ZMQ_DONTWAIT));
    if (size < 0)
        return false;
    plane->stats.answer_messages++;
    plane->stats.answer_bytes += (uint64_t)size;
    return true;
}

bool answers_ready(void *arg)
{
    struct plane *plane = arg;
    /* Called again from within a callback, there is nothing to do that is not being done. */
    if (plane->reading)
        return true;
    plane->reading = true;
    size_t used = 0;
    while (used < ANSWERS_BUDGET && (plane->unread || answers_receive(plane))) {
        size_t size = zmq_msg_size(&plane->message);
        answers_message(plane);
        used += (plane->unread ? ANSWERS_BUDGET : size) + ANSWERS_COST;
    }
    plane->reading = false;
    speakers_trim(plane);
    return used >= ANSWERS_BUDGET;
}

bool answers_poll(struct plane *plane)
{
    bool left = answers_ready(plane);
    if (left)
        watch_again(&plane->answers.watch);
    else
        watch_sent(&plane->answers.watch);
    return left;
}

void answers_close(struct plane *plane)
{
    if (plane->unread)
        zmq_msg_close(&plane->message);
    plane->unread = false;
}

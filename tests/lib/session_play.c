/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/session_play.h"

static const uint8_t zeros[16 << 20];

void play_start(struct play *r, struct session_config config)
{
    const struct slice queues[] = {slice_str("mail.*"), slice_str("mail.x"), slice_str("q")};
    *r = (struct play){.ms = 1000, .number = 100};
    config.name = slice_str("test");
    config.host = slice_str("host");
    config.queues = queues;
    config.queue_count = 3;
    r->session = session_new(&config);
    assert_non_null(r->session);
}

void play_stop(struct play *r)
{
    session_free(r->session);
    buf_free(&r->held);
}

void play_clear(struct play *r)
{
    r->said_count = r->run_count = 0;
}

void play_begin(struct play *r)
{
    session_begin(r->session, (struct now){.mono_ns = r->ms * 1000000, .wall_ms = r->ms});
}

#define SAY(NAME, name, ...)                                                                       \
    case MSG_##NAME: {                                                                             \
        struct msg_##name m;                                                                       \
        assert_true(msg_##name##_decode(in, &m));                                                  \
        *s = (struct said_message){__VA_ARGS__};                                                   \
        break;                                                                                     \
    }

static void decode_one(struct dec *in, unsigned kind, struct said_message *s)
{
    switch (kind) {
        SAY(READY, ready, .id = m.session)
        SAY(STARTED, started, .id = m.id, .lease = m.lease)
        SAY(PROGRESS, progress, .id = m.id, .lease = m.lease)
        SAY(DATA, data, .id = m.id, .lease = m.lease, .size = m.data.size)
        SAY(PART, part, .id = m.id, .lease = m.lease, .size = m.data.size)
        SAY(TASK_DONE, task_done, .id = m.id, .lease = m.lease, .size = m.result.size)
        SAY(TASK_FAILED, task_failed, .id = m.id, .lease = m.lease, .code = m.code)
        SAY(RETURNED, returned, .id = m.id, .lease = m.lease, .code = m.code)
        SAY(HEARTBEAT, heartbeat, .id = m.running)
        SAY(BYE, bye, .id = m.returned)
    default:
        fail_msg("message %u in an answers frame", kind);
    }
}

static void decode_answers(struct play *r, struct slice frame)
{
    struct dec in = dec_of(frame);
    struct msg_from from;
    assert_int_equal(dec_message(&in), MSG_FROM);
    assert_true(msg_from_decode(&in, &from));
    assert_int_equal(from.worker, PLAY_WORKER);
    assert_int_equal(from.session, r->number);
    for (uint64_t sequence = from.sequence; dec_more(&in);) {
        assert_true(r->said_count < PLAY_SAID);
        struct said_message *s = &r->said[r->said_count++];
        unsigned kind = dec_message(&in);
        decode_one(&in, kind, s);
        s->kind = kind;
        s->sequence = kind == MSG_HEARTBEAT ? 0 : sequence++;
    }
    assert_false(dec_failed(&in));
}

static void take_join(struct play *r, const struct msg_join *join)
{
    r->joins++;
    memcpy(r->nonce, join->nonce.data, sizeof r->nonce);
    struct dec queues = dec_of(join->queues);
    r->queue_count = dec_array(&queues);
    buf_clear(&r->held);
    buf_append(&r->held, join->held.data, join->held.size);
    struct dec in = dec_of(buf_slice(&r->held));
    r->held_count = dec_array(&in);
    assert_true(r->held_count <= 64);
    for (uint32_t i = 0; i < r->held_count; i++) {
        assert_int_equal(dec_message(&in), MSG_HELD);
        assert_true(msg_held_decode(&in, &r->holds[i]));
    }
}

void play_end(struct play *r)
{
    const struct session_actions *a = r->actions = session_end(r->session);
    for (size_t i = 0; i < a->run_count; i++) {
        assert_true(r->run_count < PLAY_RUNS);
        r->runs[r->run_count].kind = a->run[i].kind;
        r->runs[r->run_count++].lease = a->run[i].attempt->lease;
    }
    r->disconnects += a->disconnect;
    r->connects += a->connect != NULL;
    if (a->join)
        take_join(r, a->join);
    if (a->answers.size)
        decode_answers(r, a->answers);
}

void play_tick(struct play *r)
{
    play_begin(r);
    play_end(r);
}

void play_advance(struct play *r, uint64_t ms)
{
    r->ms += ms;
    play_tick(r);
}

void play_run_until(struct play *r, uint64_t ms)
{
    play_tick(r);
    for (unsigned turns = 0; r->actions->wake_ns <= ms * 1000000; turns++) {
        assert_true(turns < 100000); /* it wants to be woken for nothing */
        uint64_t wake_ms = (r->actions->wake_ns + 999999) / 1000000;
        r->ms = wake_ms > r->ms ? wake_ms : r->ms;
        play_tick(r);
    }
    r->ms = ms;
}

static void encode_verdicts(const struct play *r, const uint8_t *verdicts, struct buf *out)
{
    enc_array(out, r->held_count);
    for (uint32_t i = 0; i < r->held_count; i++) {
        struct msg_verdict m = {
            .id = r->holds[i].id, .lease = r->holds[i].lease, .verdict = verdicts[i]};
        msg_verdict_encode(out, &m);
    }
}

void play_welcome(struct play *r, const uint8_t *verdicts)
{
    struct buf raw = BUF_EMPTY;
    if (verdicts)
        encode_verdicts(r, verdicts, &raw);
    struct msg_welcome m = {
        .nonce = slice_of(r->nonce, sizeof r->nonce),
        .worker = PLAY_WORKER,
        .session = ++r->number,
        .lane_port = 1,
        .answers_port = 2,
        .user = slice_str("u"),
        .token = slice_str("t"),
        .heartbeat_ms = r->heartbeat_ms ? r->heartbeat_ms : 1000,
        .ping_ms = 5000,
        .max_result = sizeof zeros / 2,
        .verdicts = buf_slice(&raw),
    };
    play_begin(r);
    session_welcome(r->session, &m);
    play_end(r);
    buf_free(&raw);
}

void play_hello(struct play *r)
{
    struct msg_lane_hello m = {.worker = PLAY_WORKER, .session = r->number};
    play_begin(r);
    session_lane_hello(r->session, &m);
    play_end(r);
}

void play_up(struct play *r)
{
    unsigned joins = r->joins;
    for (unsigned i = 0; i < 5000 && r->joins == joins; i++)
        play_advance(r, 1);
    assert_int_equal(r->joins, joins + 1);
    play_welcome(r, NULL);
    play_hello(r);
    assert_int_equal(r->actions->state, SESSION_ACTIVE);
}

void play_task_of(struct play *r, const char *queue, uint64_t id)
{
    struct msg_task m = {.id = id,
        .lease = id + 1000,
        .queue = slice_str(queue),
        .attempt = 1,
        .payload = slice_str("payload")};
    session_task(r->session, &m, NULL);
}

void play_tasks(struct play *r, uint64_t first, size_t count)
{
    play_begin(r);
    for (uint64_t id = first; id < first + count; id++)
        play_task_of(r, "q", id);
    play_end(r);
}

void play_done(struct play *r, uint64_t lease, size_t size)
{
    session_done(r->session, lease, 1000, slice_of(zeros, size));
}

size_t play_said_of(const struct play *r, unsigned kind)
{
    size_t count = 0;
    for (size_t i = 0; i < r->said_count; i++)
        count += r->said[i].kind == kind;
    return count;
}

const struct said_message *play_first_said(const struct play *r, unsigned kind)
{
    for (size_t i = 0; i < r->said_count; i++) {
        if (r->said[i].kind == kind)
            return &r->said[i];
    }
    return NULL;
}

size_t play_run_of(const struct play *r, enum run_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < r->run_count; i++)
        count += r->runs[i].kind == kind;
    return count;
}

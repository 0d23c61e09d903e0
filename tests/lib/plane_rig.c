/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/plane_rig.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zmq.h>

#include "common/clock.h"

#define RIG_LIMIT_NS (UINT64_C(20) * 1000000000u)

/* ------------------------------------------------------------------------------- the rig */

static void on_join(void *arg, const struct join *join)
{
    struct rig *rig = arg;
    rig->joins++;
    rig->join = *join;
    snprintf(
        rig->name, sizeof rig->name, "%.*s", (int)join->name.size, (const char *)join->name.data);
    rig->queue_count = join->queue_count;
    for (size_t i = 0; i < join->held_count && i < 8; i++)
        rig->held[i] = join->held[i];
}

static void on_obituary(void *arg, const struct msg_obituary *obituary)
{
    struct rig *rig = arg;
    assert(obituary->instance.size == 16);
    rig->obituaries++;
}

static void on_answers(
    void *arg, uint64_t worker, uint64_t session, const struct answer *answers, size_t count)
{
    struct rig *rig = arg;
    rig->calls++;
    rig->from_worker = worker;
    rig->from_session = session;
    for (size_t i = 0; i < count; i++) {
        const struct answer *a = &answers[i];
        if (a->kind == MSG_HEARTBEAT) {
            rig->beats++;
            continue;
        }
        rig->out_of_order |= a->sequence != rig->last_sequence + 1;
        rig->last_sequence = a->sequence;
        rig->seen[a->sequence % RIG_SEEN] = *a;
        rig->sum += a->id;
        rig->answers++;
    }
}

static void on_lane_cut(void *arg, uint64_t worker)
{
    struct rig *rig = arg;
    rig->cuts++;
    rig->lost_worker = worker;
}

static void on_lane_unsent(void *arg, uint64_t worker, uint64_t id, uint64_t lease)
{
    struct rig *rig = arg;
    assert(worker == rig->lost_worker && lease && !rig->lost);
    rig->unsent += id;
}

static void on_lane_down(void *arg, uint64_t worker, int code, uint64_t since_ns)
{
    struct rig *rig = arg;
    rig->lost++;
    rig->answers_at_loss = rig->answers;
    rig->lost_worker = worker;
    rig->lost_code = code;
    rig->lost_since_ns = since_ns;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

void plane_rig_start(struct rig *rig, void (*change)(struct plane_config *))
{
    static const struct plane_events events = {
        .join = on_join,
        .obituary = on_obituary,
        .answers = on_answers,
        .lane_cut = on_lane_cut,
        .lane_unsent = on_lane_unsent,
        .lane_down = on_lane_down,
    };
    struct timeval tv = {.tv_usec = 1000};
    char *error;
    *rig = (struct rig){0};
    rig->config = (struct plane_config){
        .listen = "127.0.0.1",
        .max_lanes = 32,
        .io_threads = 1,
        .heartbeat_ms = 1000,
        .ping_ms = 5000,
        .max_result = 1 << 20,
        .max_message = 1 << 20,
    };
    if (change)
        change(&rig->config);
    rig->loop = loop_new();
    rig->base = loop_base(rig->loop);
    rig->tick = event_new(rig->base, -1, EV_PERSIST, on_tick, NULL);
    event_add(rig->tick, &tv);
    rig->plane = plane_new(rig->loop, &rig->config, &events, rig, &error);
    if (!rig->plane) {
        fprintf(stderr, "plane_new: %s\n", error);
        abort();
    }
}

void plane_rig_stop(struct rig *rig)
{
    plane_free(rig->plane);
    event_free(rig->tick);
    loop_free(rig->loop);
}

void plane_rig_turn(struct rig *rig)
{
    loop_turn(rig->loop, false);
}

uint64_t plane_rig_now(void)
{
    return clock_now().mono_ns;
}

void plane_rig_wait(struct rig *rig, uint64_t begun_ns, const char *what)
{
    if (plane_rig_now() > begun_ns + RIG_LIMIT_NS) {
        fprintf(stderr, "waited in vain for: %s\n", what);
        abort();
    }
    loop_turn(rig->loop, true);
}

int plane_rig_welcome(struct rig *rig, uint64_t worker, uint64_t session)
{
    static const uint8_t verdicts[8] = {VERDICT_KEEP, VERDICT_SEND, VERDICT_CANCEL, VERDICT_FORGET,
        VERDICT_KEEP, VERDICT_KEEP, VERDICT_KEEP, VERDICT_KEEP};
    struct join_action action = {
        .kind = JOIN_WELCOME,
        .peer = rig->join.peer,
        .worker = worker,
        .session = session,
        .held = rig->held,
        .verdicts = verdicts,
        .held_count = rig->join.held_count,
    };
    return plane_welcome(rig->plane, &action);
}

void plane_rig_close(struct rig *rig, uint64_t worker, int code)
{
    struct join_action action = {.kind = JOIN_CLOSE, .worker = worker, .code = code};
    plane_close(rig->plane, &action);
}

struct task plane_rig_task_of(uint64_t id, struct slice payload, struct body *body)
{
    static struct slice queue;
    struct task task = {0};
    queue = slice_str("digest");
    task.record.id = id;
    task.queue = (struct queue *)&queue; /* all that is read of it: its name */
    task.record.payload = payload;
    task.record.body = body;
    task.record.timeout_ms = 500;
    task.lease = id + 1000;
    task.hand_overs = 2;
    return task;
}

void plane_rig_task(struct rig *rig, uint64_t worker, const struct task *task)
{
    struct lane_action action = {.worker = worker, .kind = LANE_TASK, .task = task};
    plane_put(rig->plane, &action);
}

void plane_rig_ack(struct rig *rig, uint64_t worker, uint64_t sequence)
{
    struct lane_action action = {.worker = worker, .kind = LANE_ACK, .number = sequence};
    plane_put(rig->plane, &action);
}

/* --------------------------------------------------------------------------- fake workers */

static void *fake_socket(void *context, int type)
{
    int zero = 0;
    void *socket = zmq_socket(context, type);
    zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &zero, sizeof zero);
    zmq_setsockopt(socket, ZMQ_SNDHWM, &zero, sizeof zero);
    return socket;
}

void *fake_plain(void *context, int type, const char *user, const char *token)
{
    void *socket = fake_socket(context, type);
    zmq_setsockopt(socket, ZMQ_PLAIN_USERNAME, user, strlen(user));
    zmq_setsockopt(socket, ZMQ_PLAIN_PASSWORD, token, strlen(token));
    return socket;
}

void fake_connect(void *socket, uint64_t port)
{
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", (unsigned)port);
    int failed = zmq_connect(socket, endpoint);
    assert(failed == 0);
    (void)failed;
}

void fake_start(struct fake *fake, struct rig *rig)
{
    *fake = (struct fake){.rig = rig};
    fake->context = zmq_ctx_new();
    fake->dealer = fake_socket(fake->context, ZMQ_DEALER);
    ssize_t drawn = getrandom(fake->instance, sizeof fake->instance, 0);
    drawn += getrandom(fake->nonce, sizeof fake->nonce, 0);
    assert(drawn == 32);
    fake_connect(fake->dealer, plane_join_port(rig->plane));
}

void fake_stop(struct fake *fake)
{
    zmq_close(fake->dealer);
    if (fake->lane)
        zmq_close(fake->lane);
    if (fake->answers)
        zmq_close(fake->answers);
    zmq_ctx_term(fake->context);
}

void fake_again(struct fake *fake)
{
    ssize_t drawn = getrandom(fake->nonce, sizeof fake->nonce, 0);
    assert(drawn == 16);
    (void)drawn;
    fake->welcomed = fake->refused = false;
    fake->frames = fake->hellos = fake->tasks = fake->acks = 0;
}

struct msg_join fake_join_message(struct fake *fake, struct buf *scratch)
{
    enc_array(scratch, 2);
    enc_text(scratch, slice_str("digest"));
    enc_text(scratch, slice_str("mail.*"));
    return (struct msg_join){
        .version = PROTOCOL_VERSION,
        .instance = slice_of(fake->instance, 16),
        .nonce = slice_of(fake->nonce, 16),
        .name = slice_str("box-17"),
        .host = slice_str("box"),
        .pid = 17,
        .slots = 4,
        .max_prefetch = 1000,
        .queues = buf_slice(scratch),
    };
}

void fake_send_raw(struct fake *fake, const void *data, size_t size)
{
    int sent = zmq_send(fake->dealer, data, size, 0);
    assert(sent == (int)size);
    (void)sent;
}

void fake_send(struct fake *fake, const struct msg_join *join)
{
    struct buf frame = BUF_EMPTY;
    msg_join_encode(&frame, join);
    fake_send_raw(fake, frame.data, frame.size);
    buf_free(&frame);
}

void fake_join(struct fake *fake)
{
    struct buf scratch = BUF_EMPTY;
    struct msg_join join = fake_join_message(fake, &scratch);
    fake_send(fake, &join);
    buf_free(&scratch);
}

static void copy_text(char *to, size_t size, struct slice text)
{
    snprintf(to, size, "%.*s", (int)text.size, text.data ? (const char *)text.data : "");
}

static void fake_welcome(struct fake *fake, struct dec *d)
{
    struct msg_welcome m;
    bool read = msg_welcome_decode(d, &m);
    assert(read && m.nonce.size == 16 && memcmp(m.nonce.data, fake->nonce, 16) == 0);
    (void)read;
    copy_text(fake->user, sizeof fake->user, m.user);
    copy_text(fake->token, sizeof fake->token, m.token);
    struct dec verdicts = dec_of(m.verdicts);
    fake->verdicts = m.verdicts.data ? dec_array(&verdicts) : 0;
    fake->welcome = m;
    fake->welcomed = true;
}

static void fake_refused(struct fake *fake, struct dec *d)
{
    struct msg_refused m;
    bool read = msg_refused_decode(d, &m);
    assert(read);
    (void)read;
    fake->code = m.code;
    fake->retry = m.retry;
    copy_text(fake->text, sizeof fake->text, m.text);
    fake->refused = true;
}

static void fake_read_dealer(struct fake *fake)
{
    zmq_msg_t message;
    zmq_msg_init(&message);
    if (zmq_msg_recv(&message, fake->dealer, ZMQ_DONTWAIT) >= 0) {
        struct dec d = dec_of(slice_of(zmq_msg_data(&message), zmq_msg_size(&message)));
        unsigned kind = dec_message(&d);
        if (kind == MSG_WELCOME)
            fake_welcome(fake, &d);
        else if (kind == MSG_REFUSED)
            fake_refused(fake, &d);
        else
            abort();
    }
    zmq_msg_close(&message);
}

bool fake_is_welcome(void *arg)
{
    struct fake *fake = arg;
    fake_read_dealer(fake);
    return fake->welcomed;
}

bool fake_is_refused(void *arg)
{
    struct fake *fake = arg;
    fake_read_dealer(fake);
    return fake->refused;
}

void fake_connect_lane(struct fake *fake)
{
    int day = 24 * 3600 * 1000; /* so never; see worker/link_net.c */
    fake->lane = fake_plain(fake->context, ZMQ_PULL, fake->user, fake->token);
    zmq_setsockopt(fake->lane, ZMQ_RECONNECT_IVL, &day, sizeof day);
    fake_connect(fake->lane, fake->welcome.lane_port);
}

void fake_connect_answers(struct fake *fake, uint16_t port)
{
    int soon = 1;
    fake->answers = fake_plain(fake->context, ZMQ_PUSH, fake->user, fake->token);
    zmq_setsockopt(fake->answers, ZMQ_RECONNECT_IVL, &soon, sizeof soon);
    fake_connect(fake->answers, port ? port : fake->welcome.answers_port);
}

static bool rig_joined(void *arg)
{
    struct fake *fake = arg;
    return memcmp(fake->rig->join.instance, fake->instance, 16) == 0;
}

void fake_up(struct fake *fake, uint64_t worker, uint64_t session)
{
    fake_join(fake);
    RIG_UNTIL(fake->rig, rig_joined(fake));
    int failed = plane_rig_welcome(fake->rig, worker, session);
    if (failed) {
        fprintf(stderr, "plane_welcome: %s\n", pushrod_strerror(failed));
        abort();
    }
    RIG_UNTIL(fake->rig, fake_is_welcome(fake));
    fake_connect_lane(fake);
    fake_connect_answers(fake, 0);
    RIG_UNTIL(fake->rig, fake_has_hello(fake));
}

void fake_from(struct fake *fake, struct buf *frame, uint64_t sequence)
{
    msg_from_encode(
        frame, &(struct msg_from){fake->welcome.worker, fake->welcome.session, sequence});
}

void fake_push(struct fake *fake, struct buf *frame)
{
    int sent = zmq_send(fake->answers, frame->data, frame->size, 0);
    assert(sent == (int)frame->size);
    (void)sent;
    buf_free(frame);
}

void fake_done(struct fake *fake, uint64_t sequence, size_t count, struct slice result)
{
    struct buf frame = BUF_EMPTY;
    fake_from(fake, &frame, sequence);
    for (size_t i = 0; i < count; i++)
        msg_task_done_encode(
            &frame, &(struct msg_task_done){sequence + i, 1000 + sequence + i, 5, result});
    fake_push(fake, &frame);
}

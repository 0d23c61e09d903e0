/* SPDX-License-Identifier: Apache-2.0 */
/* What strangers may say on the join port, and what they are told. */
#include "tests/unit/unit.h"

#include <string.h>
#include <zmq.h>

#include "server/net/peers.h"
#include "server/net/ports.h"
#include "tests/lib/plane_rig.h"

static struct rig rig;
static struct fake fake;
static struct buf scratch;
static struct msg_join join;

static int begin(void **state)
{
    (void)state;
    plane_rig_start(&rig, NULL);
    fake_start(&fake, &rig);
    scratch = BUF_EMPTY;
    join = fake_join_message(&fake, &scratch);
    return 0;
}

static int end(void **state)
{
    (void)state;
    buf_free(&scratch);
    fake_stop(&fake);
    plane_rig_stop(&rig);
    return 0;
}

static void expect_refused(int code, const char *text)
{
    fake_send(&fake, &join);
    RIG_UNTIL(&rig, fake_is_refused(&fake));
    assert_int_equal(fake.code, code);
    if (!strstr(fake.text, text))
        fail_msg("'%s' is not in '%s'", text, fake.text);
    assert_false(fake.retry);
    assert_int_equal(rig.joins, 0);
    fake.refused = false;
}

static void expect_joined(void)
{
    size_t before = rig.joins;
    fake_send(&fake, &join);
    RIG_UNTIL(&rig, rig.joins > before);
}

static struct slice repeated(char c, size_t size)
{
    static char text[4096];
    assert_true(size <= sizeof text);
    memset(text, c, sizeof text);
    return slice_of(text, size);
}

static void other_version(void **state)
{
    (void)state;
    join.version = 2;
    expect_refused(PUSHROD_E_BAD_VERSION, "version 2, the server version 1");
    join.version = 0;
    expect_refused(PUSHROD_E_BAD_VERSION, "version 0");
}

/* A version that does not exist yet may have other fields; the first ones stay. */
static void other_version_with_other_fields(void **state)
{
    (void)state;
    struct buf frame = BUF_EMPTY;
    enc_array(&frame, 14);
    enc_u64(&frame, MSG_JOIN);
    enc_u64(&frame, 9);
    enc_bytes(&frame, join.instance);
    enc_bytes(&frame, join.nonce);
    for (unsigned i = 0; i < 10; i++)
        enc_map(&frame, 0);
    fake_send_raw(&fake, frame.data, frame.size);
    RIG_UNTIL(&rig, fake_is_refused(&fake));
    assert_int_equal(fake.code, PUSHROD_E_BAD_VERSION);
    buf_free(&frame);
}

static void identity(void **state)
{
    (void)state;
    join.instance.size = 15;
    expect_refused(PUSHROD_E_BAD_MESSAGE, "16 bytes");
    join.instance.size = 16;
    join.nonce = (struct slice){0};
    expect_refused(PUSHROD_E_BAD_MESSAGE, "16 bytes");
}

static void names(void **state)
{
    (void)state;
    join.name = slice_str("");
    expect_refused(PUSHROD_E_BAD_OPTION, "name is not valid");
    join.name = slice_str("a b");
    expect_refused(PUSHROD_E_BAD_OPTION, "name is not valid");
    join.name = repeated('n', 129);
    expect_refused(PUSHROD_E_BAD_OPTION, "name is not valid");
    join.name = slice_str("fine");
    join.host = slice_str("a\nb");
    expect_refused(PUSHROD_E_BAD_OPTION, "control characters");
    join.host = repeated('h', 256);
    expect_refused(PUSHROD_E_BAD_OPTION, "255 bytes");
    join.host = repeated('h', 255);
    expect_joined();
    fake_again(&fake);
    join.name = repeated('n', 128);
    expect_joined();
    assert_int_equal(strlen(rig.name), 128);
}

static void slots(void **state)
{
    (void)state;
    join.slots = 0;
    expect_refused(PUSHROD_E_BAD_OPTION, "slots is 0");
    join.slots = 4097;
    expect_refused(PUSHROD_E_BAD_OPTION, "1 to 4096");
    join.slots = 4096;
    join.max_prefetch = UINT64_C(1) << 40;
    expect_joined();
    assert_int_equal(rig.join.slots, 4096);
    assert_int_equal(rig.join.max_prefetch, UINT32_MAX);
}

static void queues_of(uint32_t count, struct slice name)
{
    buf_clear(&scratch);
    enc_array(&scratch, count);
    for (uint32_t i = 0; i < count; i++)
        enc_text(&scratch, name);
    join.queues = buf_slice(&scratch);
}

static void queues(void **state)
{
    (void)state;
    join.queues = (struct slice){0};
    expect_refused(PUSHROD_E_BAD_QUEUE, "serves no queue");
    queues_of(0, slice_str(""));
    expect_refused(PUSHROD_E_BAD_QUEUE, "serves no queue");
    queues_of(1, slice_str(""));
    expect_refused(PUSHROD_E_BAD_QUEUE, "'' is no queue");
    queues_of(1, slice_str("a*b"));
    expect_refused(PUSHROD_E_BAD_QUEUE, "'a*b' is no queue");
    queues_of(1, slice_str("tab\there"));
    expect_refused(PUSHROD_E_BAD_QUEUE, "'tab?here'");
    queues_of(1, repeated('q', 129));
    expect_refused(PUSHROD_E_BAD_QUEUE, "qqq...'");
    queues_of(1025, slice_str("q"));
    expect_refused(PUSHROD_E_TOO_MANY, "at most 1024");
    queues_of(1024, repeated('q', 128));
    expect_joined();
    assert_int_equal(rig.queue_count, 1024);
    fake_again(&fake);
    queues_of(1, slice_str("*"));
    expect_joined();
}

static void held_is_judged(void **state)
{
    (void)state;
    struct buf held = BUF_EMPTY;
    enc_array(&held, 3);
    msg_held_encode(&held, &(struct msg_held){11, 21, false, true});
    msg_held_encode(&held, &(struct msg_held){12, 22, true, true});
    msg_held_encode(&held, &(struct msg_held){13, 23, false, false});
    join.held = buf_slice(&held);
    expect_joined();
    assert_int_equal(rig.join.held_count, 3);
    assert_int_equal(rig.held[1].id, 12);
    assert_int_equal(rig.held[1].lease, 22);
    assert_true(rig.held[1].answered);
    assert_int_equal(plane_rig_welcome(&rig, 7, 70), 0);
    RIG_UNTIL(&rig, fake_is_welcome(&fake));
    assert_int_equal(fake.verdicts, 3);
    buf_free(&held);
}

static void held_that_is_wrong(void **state)
{
    (void)state;
    struct buf held = BUF_EMPTY;
    enc_array(&held, 1);
    msg_ack_encode(&held, &(struct msg_ack){1});
    join.held = buf_slice(&held);
    expect_refused(PUSHROD_E_BAD_MESSAGE, "array of HELD");
    buf_clear(&held);
    enc_map(&held, 0);
    join.held = buf_slice(&held);
    expect_refused(PUSHROD_E_BAD_MESSAGE, "held");
    buf_clear(&held);
    enc_array(&held, 1);
    msg_held_encode(&held, &(struct msg_held){0, 21, false, true});
    join.held = buf_slice(&held);
    expect_refused(PUSHROD_E_BAD_MESSAGE, "array of HELD");
    buf_free(&held);
}

/* The same nonce gets the same WELCOME, on whatever connection it comes. */
static void same_nonce_same_welcome(void **state)
{
    char token[80];
    (void)state;
    expect_joined();
    fake_send(&fake, &join); /* not answered yet: the answer comes once it is known */
    assert_int_equal(plane_rig_welcome(&rig, 7, 70), 0);
    RIG_UNTIL(&rig, fake_is_welcome(&fake));
    strcpy(token, fake.token);
    uint64_t port = fake.welcome.lane_port;
    zmq_close(fake.dealer);
    fake.dealer = zmq_socket(fake.context, ZMQ_DEALER);
    fake_connect(fake.dealer, plane_join_port(rig.plane));
    fake.welcomed = false;
    memset(fake.token, 0, sizeof fake.token);
    fake_send(&fake, &join);
    RIG_UNTIL(&rig, fake_is_welcome(&fake));
    assert_string_equal(fake.token, token);
    assert_int_equal(fake.welcome.lane_port, port);
    assert_int_equal(rig.joins, 1);
    assert_int_equal(plane_stats(rig.plane)->lanes, 1);
    int zero = 0;
    zmq_setsockopt(fake.dealer, ZMQ_LINGER, &zero, sizeof zero);
}

static void refusal_of_the_core(void **state)
{
    (void)state;
    expect_joined();
    struct join_action action = {.kind = JOIN_REFUSE,
        .peer = rig.join.peer,
        .code = PUSHROD_E_DRAINING,
        .retry = true,
        .text = "the server is stopping, come again"};
    plane_refuse(rig.plane, &action);
    RIG_UNTIL(&rig, fake_is_refused(&fake));
    assert_int_equal(fake.code, PUSHROD_E_DRAINING);
    assert_true(fake.retry);
    assert_string_equal(fake.text, "the server is stopping, come again");
    plane_refuse(rig.plane, &action); /* nobody is there any more */
    assert_int_equal(plane_rig_welcome(&rig, 7, 70), -PUSHROD_E_UNKNOWN_CONNECTION);
}

static void unreachable_lane_is_told(void **state)
{
    char text[128];
    (void)state;
    expect_joined();
    assert_int_equal(plane_rig_welcome(&rig, 7, 70), 0);
    RIG_UNTIL(&rig, fake_is_welcome(&fake));
    plane_rig_close(&rig, 7, PUSHROD_E_LANE_UNREACHABLE);
    RIG_UNTIL(&rig, fake_is_refused(&fake));
    snprintf(text, sizeof text,
        "cannot reach lane port %u of 127.0.0.1: ", (unsigned)fake.welcome.lane_port);
    assert_memory_equal(fake.text, text, strlen(text));
    assert_true(fake.retry);
}

/* The lane is there and LANE_HELLO was sent, but READY does not come. */
static void unreachable_answers_are_told(void **state)
{
    char text[128];
    (void)state;
    expect_joined();
    assert_int_equal(plane_rig_welcome(&rig, 7, 70), 0);
    RIG_UNTIL(&rig, fake_is_welcome(&fake));
    fake_connect_lane(&fake);
    RIG_UNTIL(&rig, fake_has_hello(&fake));
    plane_rig_close(&rig, 7, PUSHROD_E_LANE_UNREACHABLE);
    RIG_UNTIL(&rig, fake_is_refused(&fake));
    snprintf(text, sizeof text, "cannot reach answers port %u of 127.0.0.1: open it",
        (unsigned)plane_answers_port(rig.plane));
    assert_string_equal(fake.text, text);
    assert_true(fake.retry);
}

static void lane_range(struct plane_config *config)
{
    config->lane_port_first = 23880;
    config->lane_port_last = 23889;
    config->advertise = "gate.example";
}

static void unreachable_lane_names_the_range(void **state)
{
    (void)state;
    plane_rig_start(&rig, lane_range);
    fake_start(&fake, &rig);
    fake_join(&fake);
    RIG_UNTIL(&rig, rig.joins == 1);
    assert_int_equal(plane_rig_welcome(&rig, 7, 70), 0);
    RIG_UNTIL(&rig, fake_is_welcome(&fake));
    assert_int_equal(fake.welcome.lane_port, 23880);
    plane_rig_close(&rig, 7, PUSHROD_E_LANE_UNREACHABLE);
    RIG_UNTIL(&rig, fake_is_refused(&fake));
    assert_string_equal(
        fake.text, "cannot reach lane port 23880 of gate.example: open 23880-23889");
    fake_stop(&fake);
    plane_rig_stop(&rig);
}

static void garbage_is_counted(void **state)
{
    static uint8_t zeros[100000];
    (void)state;
    uint64_t random = random_seed();
    uint8_t bytes[64];
    fake_send_raw(&fake, "", 0);
    fake_send_raw(&fake, zeros, sizeof zeros);
    fake_send_raw(&fake, "GET / HTTP/1.1\r\n\r\n", 18);
    for (unsigned i = 0; i < 500; i++) {
        for (unsigned k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)random_next(&random);
        bytes[0] = 0xc1; /* never a message */
        fake_send_raw(&fake, bytes, 1 + i % 63);
    }
    zmq_send(fake.dealer, "a", 1, ZMQ_SNDMORE);
    zmq_send(fake.dealer, "b", 1, 0);
    expect_joined();
    assert_int_equal(plane_stats(rig.plane)->garbage, 504);
}

static void obituaries(void **state)
{
    (void)state;
    struct buf frame = BUF_EMPTY;
    struct msg_obituary m = {join.instance, 17, 9, 0, 1234};
    msg_obituary_encode(&frame, &m);
    msg_obituary_encode(&frame, &m);
    m.instance.size = 3;
    msg_obituary_encode(&frame, &m);
    fake_send_raw(&fake, frame.data, frame.size);
    RIG_UNTIL(&rig, plane_stats(rig.plane)->garbage == 1);
    assert_int_equal(rig.obituaries, 2);
    buf_free(&frame);
}

/* Nobody means to send more; what a stranger puts into 8 MiB must not keep the loop. */
static void a_frame_has_few_messages(void **state)
{
    (void)state;
    struct buf frame = BUF_EMPTY;
    for (unsigned i = 0; i < 1000; i++)
        msg_obituary_encode(&frame, &(struct msg_obituary){join.instance, 17, 9, 0, 1234});
    fake_send_raw(&fake, frame.data, frame.size);
    RIG_UNTIL(&rig, plane_stats(rig.plane)->garbage == 1);
    assert_int_equal(rig.obituaries, 64);
    buf_free(&frame);
}

static void with_token(struct plane_config *config)
{
    config->token = "open sesame";
}

/* Who does not know the secret is told what to do, and nothing else; it may change. */
static void token_is_asked_for(void **state)
{
    (void)state;
    plane_rig_start(&rig, with_token);
    fake_start(&fake, &rig);
    scratch = BUF_EMPTY;
    join = fake_join_message(&fake, &scratch);
    expect_refused(PUSHROD_E_BAD_TOKEN, "asks for a token");
    static const char *const wrong[] = {
        "", "o", "open sesam", "open sesame!", "open sesameopen sesame"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        join.token = slice_str(wrong[i]);
        expect_refused(PUSHROD_E_BAD_TOKEN, "PUSHROD_TOKEN");
    }
    assert_int_equal(plane_stats(rig.plane)->bad_tokens, 6);
    join.token = slice_str("open sesame");
    expect_joined();
    assert_true(plane_set_token(rig.plane, "another"));
    fake_again(&fake);
    rig.joins = 0;
    expect_refused(PUSHROD_E_BAD_TOKEN, "the token is wrong");
    join.token = slice_str("another");
    expect_joined();
    assert_true(plane_set_token(rig.plane, ""));
    fake_again(&fake);
    join.token = (struct slice){0};
    expect_joined();
    end(NULL);
}

/* ------------------------------------------------------------------------------ the parts */

static void strangers_cost_a_bounded_amount(void **state)
{
    struct peers peers;
    uint8_t nonce[16] = {0}, instance[16] = {0};
    (void)state;
    peers_init(&peers, 8, 1);
    for (unsigned i = 0; i < 1000; i++) {
        memcpy(nonce, &i, sizeof i);
        struct peer *peer = peers_add(&peers, slice_of(nonce, 16), slice_of(instance, 16));
        assert_non_null(peer);
        if (i == 0)
            peer_welcomed(&peers, peer); /* does not wait: is not in the way, and stays */
    }
    assert_int_equal(peers.waiting_count, 8);
    assert_int_equal(peers.by_handle.count, 9);
    assert_non_null(peers_get(&peers, 1));
    assert_null(peers_get(&peers, 2));
    assert_non_null(peers_by_nonce(&peers, slice_of(nonce, 16)));
    peer_drop(&peers, peers_get(&peers, 1000));
    assert_null(peers_by_nonce(&peers, slice_of(nonce, 16)));
    peers_free(&peers);
}

static void ports_rest_after_use(void **state)
{
    struct ports ports;
    uint64_t now_ns = 1000;
    (void)state;
    assert_true(ports_init(&ports, 10, 12));
    assert_int_equal(ports_take(&ports, now_ns), 10);
    assert_int_equal(ports_take(&ports, now_ns), 11);
    ports_give(&ports, 10, now_ns);
    assert_int_equal(ports_take(&ports, now_ns), 12);
    assert_int_equal(ports_take(&ports, now_ns), 0);
    assert_int_equal(ports_take(&ports, now_ns + PORTS_QUARANTINE_NS - 1), 0);
    assert_int_equal(ports_take(&ports, now_ns + PORTS_QUARANTINE_NS), 10);
    ports_free(&ports);
    assert_true(ports_init(&ports, 0, 0));
    assert_int_equal(ports_take(&ports, now_ns), 0);
    ports_give(&ports, 10, now_ns);
    ports_free(&ports);
}

int main(void)
{
#define WITH_PLANE(test) cmocka_unit_test_setup_teardown(test, begin, end)
    const struct CMUnitTest tests[] = {
        WITH_PLANE(other_version),
        WITH_PLANE(other_version_with_other_fields),
        WITH_PLANE(identity),
        WITH_PLANE(names),
        WITH_PLANE(slots),
        WITH_PLANE(queues),
        WITH_PLANE(held_is_judged),
        WITH_PLANE(held_that_is_wrong),
        WITH_PLANE(same_nonce_same_welcome),
        WITH_PLANE(refusal_of_the_core),
        WITH_PLANE(unreachable_lane_is_told),
        WITH_PLANE(unreachable_answers_are_told),
        cmocka_unit_test(unreachable_lane_names_the_range),
        cmocka_unit_test(token_is_asked_for),
        WITH_PLANE(garbage_is_counted),
        WITH_PLANE(obituaries),
        WITH_PLANE(a_frame_has_few_messages),
        cmocka_unit_test(strangers_cost_a_bounded_amount),
        cmocka_unit_test(ports_rest_after_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

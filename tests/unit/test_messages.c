/* SPDX-License-Identifier: Apache-2.0 */
/* Every message, made from the lists: written, read back, truncated, bent. */
#include "tests/unit/unit.h"

#include <string.h>
#include <msgpack.h>

#include "proto/codec.h"
#include "proto/messages.h"

static const uint8_t raw_value[] = {0x92, 0x01, 0x81, 0xa1, 'k', 0xa1, 'v'};

/* Fills a field with a random value of its kind; slices are absent now and then. */
static uint64_t some_u64(uint64_t *seed)
{
    return random_next(seed) >> (1 + random_next(seed) % 63);
}

static struct slice some_bytes(uint64_t *seed)
{
    static const char bytes[] = "0123456789012345678901234567890123456789";
    uint64_t r = random_next(seed);
    return r % 4 == 0 ? (struct slice){0} : slice_of(bytes, r % 40);
}

static struct slice some_raw(uint64_t *seed)
{
    return random_next(seed) & 1 ? slice_of(raw_value, sizeof raw_value) : (struct slice){0};
}

static bool some_bool(uint64_t *seed)
{
    return random_next(seed) & 1;
}

static bool same(struct slice a, struct slice b)
{
    return slice_equal(a, b) && !a.data == !b.data;
}

#define FILL_U64         some_u64
#define FILL_BOOL        some_bool
#define FILL_TEXT        some_bytes
#define FILL_BYTES       some_bytes
#define FILL_RAW         some_raw
#define SAME_U64(a, b)   ((a) == (b))
#define SAME_BOOL(a, b)  ((a) == (b))
#define SAME_TEXT(a, b)  same(a, b)
#define SAME_BYTES(a, b) same(a, b)
#define SAME_RAW(a, b)   same(a, b)

/* What is done with one message type; the bytes are one encoded message. */
struct sample {
    const char *name;
    unsigned number;
    struct buf bytes;
    bool (*decode)(struct dec *d); /* into a struct of its own */
};

#define FILL(kind, field, text) m.field = FILL_##kind(seed);
#define SAME(kind, field, text) assert_true(SAME_##kind(m.field, back.field));
#define M(number_, NAME, type, plane, text)                                                        \
    static bool decode_##type(struct dec *d)                                                       \
    {                                                                                              \
        struct msg_##type m;                                                                       \
        return msg_##type##_decode(d, &m);                                                         \
    }                                                                                              \
    static struct sample sample_##type(uint64_t *seed)                                             \
    {                                                                                              \
        struct msg_##type m, back;                                                                 \
        struct sample s = {#NAME, number_, BUF_EMPTY, decode_##type};                              \
        FIELDS_##NAME(FILL) msg_##type##_encode(&s.bytes, &m);                                     \
        struct dec d = dec_of(buf_slice(&s.bytes));                                                \
        assert_int_equal(dec_message(&d), MSG_##NAME);                                             \
        assert_true(msg_##type##_decode(&d, &back));                                               \
        assert_false(dec_more(&d));                                                                \
        FIELDS_##NAME(SAME) return s;                                                              \
    }
MESSAGES(M)
#undef M

static struct sample (*const samples[])(uint64_t *seed) = {
#define M(number, NAME, type, plane, text) sample_##type,
    MESSAGES(M)
#undef M
};
#define SAMPLES (sizeof samples / sizeof *samples)

static void messages_come_back(void **state)
{
    (void)state;
    uint64_t seed = random_seed();
    for (unsigned round = 0; round < 50; round++)
        for (size_t i = 0; i < SAMPLES; i++) {
            struct sample s = samples[i](&seed);
            struct dec d = dec_of(buf_slice(&s.bytes));
            dec_skip_message(&d, dec_message(&d));
            assert_false(dec_failed(&d) || dec_more(&d));
            buf_free(&s.bytes);
        }
}

static void messages_are_read_by_msgpack(void **state)
{
    (void)state;
    uint64_t seed = random_seed();
    for (size_t i = 0; i < SAMPLES; i++) {
        struct sample s = samples[i](&seed);
        size_t offset = 0;
        msgpack_unpacked u;
        msgpack_unpacked_init(&u);
        assert_int_equal(msgpack_unpack_next(&u, (char *)s.bytes.data, s.bytes.size, &offset),
            MSGPACK_UNPACK_SUCCESS);
        assert_int_equal(offset, s.bytes.size);
        assert_int_equal(u.data.type, MSGPACK_OBJECT_ARRAY);
        assert_int_equal(u.data.via.array.ptr[0].via.u64, s.number);
        /* And what msgpack-c makes of it again is read here, too. */
        msgpack_sbuffer again;
        msgpack_packer pk;
        msgpack_sbuffer_init(&again);
        msgpack_packer_init(&pk, &again, msgpack_sbuffer_write);
        msgpack_pack_object(&pk, u.data);
        struct dec d = dec_of(slice_of(again.data, again.size));
        assert_int_equal(dec_message(&d), s.number);
        assert_true(s.decode(&d));
        msgpack_sbuffer_destroy(&again);
        msgpack_unpacked_destroy(&u);
        buf_free(&s.bytes);
    }
}

static void truncated_messages_fail(void **state)
{
    (void)state;
    uint64_t seed = random_seed();
    for (size_t i = 0; i < SAMPLES; i++) {
        struct sample s = samples[i](&seed);
        for (size_t size = 0; size < s.bytes.size; size++) {
            uint8_t *copy = malloc(size ? size : 1);
            assert_non_null(copy);
            memcpy(copy, s.bytes.data, size);
            struct dec d = dec_of(slice_of(copy, size));
            assert_false(dec_message(&d) == s.number && s.decode(&d));
            assert_true(dec_failed(&d));
            free(copy);
        }
        buf_free(&s.bytes);
    }
}

/* A field more, a field less, a number that is none: refused before a field is read. */
static void wrong_heads_fail(void **state)
{
    (void)state;
    uint64_t seed = random_seed();
    for (size_t i = 0; i < SAMPLES; i++) {
        struct sample s = samples[i](&seed);
        if ((s.bytes.data[0] & 0xf0) == 0x90 && (s.bytes.data[0] & 0x0f) < 15) {
            for (int change = -1; change <= 1; change += 2) {
                s.bytes.data[0] = (uint8_t)(s.bytes.data[0] + change);
                struct dec d = dec_of(buf_slice(&s.bytes));
                assert_int_equal(dec_message(&d), 0);
                assert_true(dec_failed(&d));
                s.bytes.data[0] = (uint8_t)(s.bytes.data[0] - change);
            }
        }
        buf_free(&s.bytes);
    }
    for (uint8_t number = 0; number < 128; number++) {
        uint8_t frame[] = {0x91, number};
        struct dec d = dec_of(slice_of(frame, 2));
        assert_int_equal(dec_message(&d), 0);
        assert_true(dec_failed(&d));
    }
    uint8_t large[] = {0x91, 0xcd, 1, 11}, empty[] = {0x90, 11};
    struct dec d = dec_of(slice_of(large, 4));
    assert_int_equal(dec_message(&d), 0);
    d = dec_of(slice_of(empty, 2));
    assert_int_equal(dec_message(&d), 0);
}

/* Random damage is either refused or read: never a crash, never a read beyond the end. */
static void bent_messages_do_no_harm(void **state)
{
    (void)state;
    uint64_t seed = random_seed();
    for (unsigned round = 0; round < 200; round++)
        for (size_t i = 0; i < SAMPLES; i++) {
            struct sample s = samples[i](&seed);
            s.bytes.data[random_next(&seed) % s.bytes.size] = (uint8_t)random_next(&seed);
            struct dec d = dec_of(buf_slice(&s.bytes));
            unsigned number = dec_message(&d);
            if (number == s.number)
                s.decode(&d);
            else if (number)
                dec_skip_message(&d, number);
            buf_free(&s.bytes);
        }
}

static void raw_fields_are_lists(void **state)
{
    (void)state;
    struct msg_task task = {
        .id = 1, .lease = 2, .queue = slice_str("q"), .headers = slice_str("\x01")};
    struct buf b = BUF_EMPTY;
    msg_task_encode(&b, &task);
    struct dec d = dec_of(buf_slice(&b));
    assert_int_equal(dec_message(&d), MSG_TASK);
    assert_false(msg_task_decode(&d, &task));
    buf_free(&b);
}

static void messages_stand_back_to_back(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    for (unsigned i = 0; i < 1000; i++)
        msg_ping_encode(&b, &(struct msg_ping){.sequence = i});
    struct dec d = dec_of(buf_slice(&b));
    for (unsigned i = 0; i < 1000; i++) {
        struct msg_ping ping;
        assert_true(dec_more(&d));
        assert_int_equal(dec_message(&d), MSG_PING);
        assert_true(msg_ping_decode(&d, &ping));
        assert_int_equal(ping.sequence, i);
    }
    assert_false(dec_more(&d) || dec_failed(&d));
    buf_free(&b);
}

static void names_and_planes(void **state)
{
    (void)state;
    enum msg_plane plane;
    assert_string_equal(msg_name(MSG_TASK), "TASK");
    assert_string_equal(msg_name(0), "?");
    assert_string_equal(msg_name(1000000), "?");
    assert_true(msg_known(MSG_WELCOME, &plane));
    assert_int_equal(plane, PLANE_JOIN_DOWN);
    assert_false(msg_known(127, &plane));
}

static void encoding_survives_a_failed_buffer(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    assert_null(buf_reserve(&b, SIZE_MAX / 2));
    msg_ping_encode(&b, &(struct msg_ping){.sequence = 1});
    assert_int_equal(b.size, 0);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_back),
        cmocka_unit_test(messages_are_read_by_msgpack),
        cmocka_unit_test(truncated_messages_fail),
        cmocka_unit_test(wrong_heads_fail),
        cmocka_unit_test(bent_messages_do_no_harm),
        cmocka_unit_test(raw_fields_are_lists),
        cmocka_unit_test(messages_stand_back_to_back),
        cmocka_unit_test(names_and_planes),
        cmocka_unit_test(encoding_survives_a_failed_buffer),
    };
    return cmocka_run_group_tests_name("messages", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The codec against msgpack-c: what one writes the other reads, and nothing else is taken. */
#include "tests/unit/unit.h"

#include <string.h>
#include <msgpack.h>

#include "proto/codec.h"

static const uint64_t numbers[] = {
    0, 1, 31, 32, 127, 128, 255, 256, 65535, 65536, UINT32_MAX, UINT64_C(1) << 32, INT64_MAX};
static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536};

static void numbers_are_read_by_msgpack(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct buf b = BUF_EMPTY;
        enc_u64(&b, numbers[i]);
        msgpack_unpacked u;
        msgpack_unpacked_init(&u);
        assert_int_equal(
            msgpack_unpack_next(&u, (char *)b.data, b.size, NULL), MSGPACK_UNPACK_SUCCESS);
        assert_int_equal(u.data.type, MSGPACK_OBJECT_POSITIVE_INTEGER);
        assert_int_equal(u.data.via.u64, numbers[i]);
        msgpack_unpacked_destroy(&u);
        struct dec d = dec_of(buf_slice(&b));
        assert_int_equal(dec_u64(&d), numbers[i]);
        assert_false(dec_failed(&d) || dec_more(&d));
        buf_free(&b);
    }
}

/* Every form of a number that msgpack-c can write, fixed width and signed ones too. */
static void numbers_of_msgpack_are_read(void **state)
{
    (void)state;
    msgpack_sbuffer s;
    msgpack_packer pk;
    msgpack_sbuffer_init(&s);
    msgpack_packer_init(&pk, &s, msgpack_sbuffer_write);
    msgpack_pack_fix_uint8(&pk, 5);
    msgpack_pack_fix_uint16(&pk, 5);
    msgpack_pack_fix_uint32(&pk, 5);
    msgpack_pack_fix_uint64(&pk, 5);
    msgpack_pack_fix_int8(&pk, 5);
    msgpack_pack_fix_int16(&pk, 5);
    msgpack_pack_fix_int32(&pk, 5);
    msgpack_pack_fix_int64(&pk, 5);
    struct dec d = dec_of(slice_of(s.data, s.size));
    for (int i = 0; i < 8; i++)
        assert_int_equal(dec_u64(&d), 5);
    assert_false(dec_failed(&d) || dec_more(&d));
    msgpack_sbuffer_destroy(&s);
}

static void numbers_out_of_range_fail(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        msgpack_sbuffer s;
        msgpack_packer pk;
        msgpack_sbuffer_init(&s);
        msgpack_packer_init(&pk, &s, msgpack_sbuffer_write);
        if (i == 0)
            msgpack_pack_uint64(&pk, UINT64_C(1) << 63);
        else
            msgpack_pack_int64(&pk, i == 1 ? -1 : i == 2 ? -200 : INT64_MIN);
        struct dec d = dec_of(slice_of(s.data, s.size));
        assert_int_equal(dec_u64(&d), 0);
        assert_true(dec_failed(&d));
        assert_false(dec_more(&d));
        msgpack_sbuffer_destroy(&s);
    }
}

static void bytes_and_text_both_ways(void **state)
{
    (void)state;
    char *bytes = calloc(1, 65536);
    assert_non_null(bytes);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct buf b = BUF_EMPTY;
        enc_text(&b, slice_of(bytes, sizes[i]));
        enc_bytes(&b, slice_of(bytes, sizes[i]));
        msgpack_sbuffer s;
        msgpack_packer pk;
        msgpack_sbuffer_init(&s);
        msgpack_packer_init(&pk, &s, msgpack_sbuffer_write);
        msgpack_pack_str_with_body(&pk, bytes, sizes[i]);
        msgpack_pack_bin_with_body(&pk, bytes, sizes[i]);
        assert_int_equal(b.size, s.size);
        assert_memory_equal(b.data, s.data, s.size);
        struct dec d = dec_of(buf_slice(&b));
        assert_int_equal(dec_text(&d).size, sizes[i]);
        struct slice got = dec_bytes(&d);
        assert_int_equal(got.size, sizes[i]);
        assert_non_null(got.data);
        assert_false(dec_failed(&d) || dec_more(&d));
        msgpack_sbuffer_destroy(&s);
        buf_free(&b);
    }
    free(bytes);
}

static void absent_is_not_empty(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    enc_text(&b, (struct slice){0});
    enc_bytes(&b, (struct slice){0});
    enc_raw(&b, (struct slice){0});
    enc_nil(&b);
    enc_text(&b, slice_str(""));
    assert_int_equal(b.size, 5);
    struct dec d = dec_of(buf_slice(&b));
    assert_null(dec_text(&d).data);
    assert_null(dec_bytes(&d).data);
    assert_null(dec_raw(&d).data);
    assert_true(dec_nil(&d));
    assert_false(dec_nil(&d));
    assert_non_null(dec_text(&d).data);
    assert_false(dec_failed(&d));
    buf_free(&b);
}

/* Array, map, text, bytes, booleans and numbers, nested as far as they may be. */
static void encode_some_of_all(struct buf *b)
{
    enc_array(b, 17);
    for (unsigned i = 0; i < 12; i++)
        enc_u64(b, UINT64_C(1) << (5 * i));
    enc_bool(b, true);
    enc_map(b, 1);
    enc_text(b, slice_str("key"));
    enc_array(b, 1);
    enc_map(b, 1);
    enc_nil(b);
    enc_bool(b, false);
    enc_bytes(b, slice_str("bytes of more than thirty-one characters"));
    enc_text(b, slice_str("text of more than thirty-one characters"));
    enc_array(b, 0);
}

static void truncated_at_every_byte_fails(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    encode_some_of_all(&b);
    struct dec whole = dec_of(buf_slice(&b));
    assert_int_equal(dec_raw(&whole).size, b.size);
    assert_false(dec_failed(&whole) || dec_more(&whole));
    for (size_t size = 0; size < b.size; size++) {
        /* An exact copy, so that the address sanitizer sees a read beyond it. */
        uint8_t *copy = malloc(size ? size : 1);
        assert_non_null(copy);
        memcpy(copy, b.data, size);
        struct dec d = dec_of(slice_of(copy, size));
        assert_null(dec_raw(&d).data);
        assert_true(dec_failed(&d));
        free(copy);
    }
    buf_free(&b);
}

/* For each kind byte: each reader takes exactly the kinds that it is for. */
static void wrong_kinds_fail(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 256; kind++) {
        uint8_t frame[300] = {(uint8_t)kind};
        struct slice s = slice_of(frame, sizeof frame);
        bool number = kind < 0x80 || (kind >= 0xcc && kind <= 0xd3);
        bool text = (kind & 0xe0) == 0xa0 || (kind >= 0xd9 && kind <= 0xdb);
        bool bytes = kind >= 0xc4 && kind <= 0xc6;
        bool array = (kind & 0xf0) == 0x90 || kind == 0xdc || kind == 0xdd;
        bool map = (kind & 0xf0) == 0x80 || kind == 0xde || kind == 0xdf;
        bool truth = kind == 0xc2 || kind == 0xc3, nil = kind == 0xc0;
        struct dec d = dec_of(s);
        dec_u64(&d);
        assert_int_equal(!dec_failed(&d), number);
        d = dec_of(s);
        dec_text(&d);
        assert_int_equal(!dec_failed(&d), text || nil);
        d = dec_of(s);
        dec_bytes(&d);
        assert_int_equal(!dec_failed(&d), bytes || nil);
        d = dec_of(s);
        dec_array(&d);
        assert_int_equal(!dec_failed(&d), array);
        d = dec_of(s);
        dec_map(&d);
        assert_int_equal(!dec_failed(&d), map);
        d = dec_of(s);
        dec_bool(&d);
        assert_int_equal(!dec_failed(&d), truth);
        d = dec_of(s);
        dec_list(&d);
        assert_int_equal(!dec_failed(&d), array || map || nil);
        d = dec_of(s);
        dec_raw(&d);
        assert_int_equal(!dec_failed(&d), number || text || bytes || array || map || truth || nil);
    }
}

static void error_is_sticky(void **state)
{
    (void)state;
    uint8_t frame[] = {0xc2, 5, 0xa1, 'x', 0xc4, 1, 'y', 0x91, 1};
    struct dec d = dec_of(slice_of(frame, sizeof frame));
    dec_u64(&d);
    const char *first = d.error;
    assert_non_null(first);
    assert_int_equal(dec_u64(&d), 0);
    assert_null(dec_text(&d).data);
    assert_null(dec_bytes(&d).data);
    assert_null(dec_raw(&d).data);
    assert_int_equal(dec_array(&d), 0);
    assert_int_equal(dec_map(&d), 0);
    assert_false(dec_bool(&d) || dec_nil(&d) || dec_more(&d));
    assert_int_equal(dec_message(&d), 0);
    dec_fail(&d, "another");
    assert_ptr_equal(d.error, first);
}

static void depth_and_counts_are_bounded(void **state)
{
    (void)state;
    uint8_t deep[] = {0x91, 0x91, 0x91, 0x91, 0x91, 0x01};
    struct dec d = dec_of(slice_of(deep + 1, 5));
    assert_int_equal(dec_raw(&d).size, 5);
    d = dec_of(slice_of(deep, 6));
    dec_raw(&d);
    assert_true(dec_failed(&d));
    /* A count that cannot be true fails at once, instead of looping. */
    uint8_t array[] = {0xdd, 0xff, 0xff, 0xff, 0xff, 1}, map[] = {0xdf, 0xff, 0xff, 0xff, 0xff, 1};
    d = dec_of(slice_of(array, sizeof array));
    assert_int_equal(dec_array(&d), 0);
    assert_true(dec_failed(&d));
    d = dec_of(slice_of(map, sizeof map));
    assert_null(dec_raw(&d).data);
    assert_true(dec_failed(&d));
    d = dec_of((struct slice){0});
    assert_false(dec_more(&d));
    dec_u64(&d);
    assert_true(dec_failed(&d));
}

static bool headers(const char *name, const char *value, size_t value_size)
{
    struct buf b = BUF_EMPTY;
    enc_map(&b, 2);
    enc_text(&b, slice_str("Good-Name_1"));
    enc_text(&b, slice_str("any value, ünicode too"));
    enc_text(&b, slice_str(name));
    enc_text(&b, slice_of(value, value_size));
    bool valid = headers_valid(buf_slice(&b));
    buf_append(&b, "\xc0", 1);
    assert_false(headers_valid(buf_slice(&b)));
    buf_free(&b);
    return valid;
}

static void headers_are_texts(void **state)
{
    (void)state;
    char longest[66];
    memset(longest, 'n', 65);
    longest[65] = '\0';
    assert_true(headers("x", "", 0));
    assert_true(headers(longest + 1, "v", 1));
    assert_false(headers(longest, "v", 1));
    assert_false(headers("", "v", 1));
    assert_false(headers("a=b", "v", 1));
    assert_false(headers("a", "v\0w", 3));
    assert_false(headers_valid(slice_of("\x91\x01", 2)));
    assert_false(headers_valid(slice_of("\x81\xa1x\x01", 4)));
    assert_false(headers_valid(slice_of("\x81\xa1x\xc0", 4)));
    assert_false(headers_valid((struct slice){0}));
    assert_true(headers_valid(slice_of("\x80", 1)));
}

/* A buffer without memory takes nothing, and says so. */
static void encoding_survives_a_failed_buffer(void **state)
{
    (void)state;
    struct buf b = BUF_EMPTY;
    assert_null(buf_reserve(&b, SIZE_MAX / 2));
    encode_some_of_all(&b);
    enc_raw(&b, slice_str("x"));
    assert_int_equal(b.size, 0);
    assert_true(b.failed);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_read_by_msgpack),
        cmocka_unit_test(numbers_of_msgpack_are_read),
        cmocka_unit_test(numbers_out_of_range_fail),
        cmocka_unit_test(bytes_and_text_both_ways),
        cmocka_unit_test(absent_is_not_empty),
        cmocka_unit_test(truncated_at_every_byte_fails),
        cmocka_unit_test(wrong_kinds_fail),
        cmocka_unit_test(error_is_sticky),
        cmocka_unit_test(depth_and_counts_are_bounded),
        cmocka_unit_test(headers_are_texts),
        cmocka_unit_test(encoding_survives_a_failed_buffer),
    };
    return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}

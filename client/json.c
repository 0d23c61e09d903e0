/* SPDX-License-Identifier: Apache-2.0 */
#include "client/json.h"

#include <assert.h>
#include <string.h>

/* Strings: they do not fit a double. */
static json_t *json_id(uint64_t id)
{
    return id ? json_sprintf("%llu", (unsigned long long)id) : json_null();
}

/* RFC 4648; only for what is not UTF-8, so that text stays readable. */
static json_t *json_base64(const uint8_t *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf text = BUF_EMPTY;
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t three = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                         (left > 2 ? data[i + 2] : 0);
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63],
            left > 1 ? digits[three >> 6 & 63] : '=', left > 2 ? digits[three & 63] : '='};
        buf_append(&text, four, sizeof four);
    }
    json_t *value = json_pack("{s:s}", "base64", buf_text(&text));
    buf_free(&text);
    return value;
}

json_t *json_bytes(const void *data, size_t size)
{
    json_t *text = json_stringn(data ? data : "", size); /* NULL if it is not UTF-8 */
    return text ? text : json_base64(data, size);
}

/* Two digits behind the point are more than is sure. */
json_t *json_rate(double per_second)
{
    if (per_second < 0)
        return json_null();
    return json_real((double)(int64_t)(per_second * 100 + 0.5) / 100);
}

/* Errors of handlers may hold anything. */
static json_t *text_value(const char *text)
{
    return text && *text ? json_bytes(text, strlen(text)) : json_null();
}

static json_t *number_value(uint64_t number)
{
    return json_integer((json_int_t)number);
}

static json_t *bytes_value(const void *bytes, size_t size)
{
    return bytes ? json_bytes(bytes, size) : json_null();
}

static json_t *field_value(const struct json_field *f, const void *row)
{
    const void *at = (const char *)row + f->at, *size_at = (const char *)row + f->size_at;
    switch (f->type) {
    case FIELD_TEXT:
        return text_value(*(const char *const *)at);
    case FIELD_ID:
        return json_id(*(const uint64_t *)at);
    case FIELD_TIME:
        return *(const uint64_t *)at ? number_value(*(const uint64_t *)at) : json_null();
    case FIELD_NUMBER:
        return number_value(*(const uint64_t *)at);
    case FIELD_SIGNED:
        return json_integer((json_int_t) * (const int64_t *)at);
    case FIELD_SMALL:
        return number_value(*(const unsigned *)at);
    case FIELD_BOOL:
        return json_boolean(*(const bool *)at);
    case FIELD_RATE:
        return json_rate(*(const double *)at);
    case FIELD_ERROR:
        return *(const int *)at ? json_string(pushrod_error_name(*(const int *)at)) : json_null();
    case FIELD_BYTES:
        return bytes_value(*(const void *const *)at, *(const size_t *)size_at);
    case FIELD_JSON:
        return json_incref(*(json_t *const *)at);
    case FIELD_MADE:
        break;
    }
    return f->make(row);
}

json_t *json_object_of(enum json_kind kind, const void *row)
{
    assert(kind < JSON_KINDS && row);
    const struct json_table *table = &json_tables[kind];
    json_t *o = json_object();
    for (size_t i = 0; i < table->count; i++)
        json_object_set_new(o, table->fields[i].name, field_value(&table->fields[i], row));
    return o;
}

/* One line each: what reads them needs no parser for streams. */
void json_print_row(enum json_kind kind, const void *row)
{
    json_t *object = json_object_of(kind, row);
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(object);
}

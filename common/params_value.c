/* SPDX-License-Identifier: Apache-2.0 */
/* params: what a value of each type looks like: read, described, written. */
#include "common/params_value.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool parse_bool(const char *text, uint64_t *number)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (unsigned i = 0; i < 8; i++)
        if (strcasecmp(text, words[i]) == 0) {
            *number = i & 1;
            return true;
        }
    return false;
}

static bool parse_digits(const char **text, uint64_t *number)
{
    const char *c = *text;
    uint64_t value = 0;
    for (; *c >= '0' && *c <= '9'; c++) {
        uint64_t digit = (uint64_t)(*c - '0');
        if (value > (INT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    bool any = c != *text;
    *text = c;
    *number = value;
    return any;
}

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {{"g", UINT64_C(1) << 30}, {"m", UINT64_C(1) << 20},
    {"k", UINT64_C(1) << 10}, {"", 1}, {NULL, 0}};
static const struct unit duration_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

static const struct unit *units_of(enum param_type type)
{
    return type == PARAM_SIZE ? size_units : type == PARAM_DURATION ? duration_units : no_units;
}

static bool parse_number(enum param_type type, const char *text, uint64_t *number)
{
    if (!parse_digits(&text, number))
        return false;
    /* A duration without a unit would be a guess, except that nothing is nothing in every unit. */
    if (type == PARAM_DURATION && *number == 0 && *text == '\0')
        return true;
    for (const struct unit *u = units_of(type); u->name; u++) {
        if (strcasecmp(text, u->name) != 0)
            continue;
        if (*number > (uint64_t)INT64_MAX / u->factor)
            return false;
        *number *= u->factor;
        return true;
    }
    return false;
}

/* `number` as a user would write it. */
static void number_text(enum param_type type, uint64_t number, struct buf *out)
{
    for (const struct unit *u = units_of(type); u->name; u++)
        if (number % u->factor == 0 && (number || u->factor == 1)) {
            buf_printf(out, "%llu%s", (unsigned long long)(number / u->factor), u->name);
            return;
        }
}

static bool parse_ports(const char *text, uint64_t *number)
{
    uint64_t first, last;
    if (!parse_digits(&text, &first) || *text++ != '-' || !parse_digits(&text, &last) || *text)
        return false;
    *number = first << 16 | last;
    return first >= 1 && first <= last && last <= 65535;
}

/* The place of the word among those that are allowed ("text|json"). */
static bool parse_enum(const char *allowed, const char *text, uint64_t *number)
{
    for (*number = 0;; ++*number) {
        size_t size = strcspn(allowed, "|");
        if (size == strlen(text) && memcmp(allowed, text, size) == 0)
            return true;
        if (!allowed[size])
            return false;
        allowed += size + 1;
    }
}

bool params_split_host(const char *text, char *host, size_t size, uint16_t *port)
{
    const char *end, *rest;
    if (*text == '[') {
        end = strchr(++text, ']');
        rest = end ? end + 1 : NULL;
    } else {
        end = rest = text + strcspn(text, ":");
    }
    /*
     * A number alone is a port whose host was forgotten, and as an address would be one of
     * 0.0.0.0/8; what begins with a dash is an option in the place of a forgotten value.
     */
    if (!end || end == text || (size_t)(end - text) >= size || *text == '-' ||
        strcspn(text, " \t/,=") < (size_t)(end - text) || text + strspn(text, "0123456789") == end)
        return false;
    memcpy(host, text, (size_t)(end - text));
    host[end - text] = '\0';
    if (*rest == '\0')
        return true;
    uint64_t number;
    if (*rest++ != ':' || !parse_digits(&rest, &number) || *rest || number > 65535)
        return false;
    *port = (uint16_t)number;
    return true;
}

void params_join_host(char *text, size_t size, const char *host, unsigned port)
{
    snprintf(text, size, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
}

bool param_parse(const struct param *row, const char *text, uint64_t *number)
{
    char host[256];
    uint16_t port = 0;
    *number = 0;
    switch (row->type) {
    case PARAM_BOOL:
        return parse_bool(text, number);
    case PARAM_UNSIGNED:
    case PARAM_SIZE:
    case PARAM_DURATION:
        return parse_number(row->type, text, number) && *number >= row->min &&
               (row->max == 0 || *number <= row->max);
    case PARAM_PORT:
        return parse_number(row->type, text, number) && *number <= 65535;
    case PARAM_PORTS:
        return parse_ports(text, number);
    case PARAM_ENUM:
        return parse_enum(row->allowed, text, number);
    case PARAM_HOST_PORT:
    case PARAM_HOST_PORTS:
        return params_split_host(text, host, sizeof host, &port);
    case PARAM_LIST:
        return *text != '\0';
    default:
        return true;
    }
}

static void describe_range(const struct param *row, const char *what, struct buf *out)
{
    buf_printf(out, "%s", what);
    if (row->min || row->max) {
        buf_printf(out, row->max ? " from " : " of at least ");
        number_text(row->type, row->min, out);
    }
    if (row->max) {
        buf_printf(out, " to ");
        number_text(row->type, row->max, out);
    }
}

void param_describe(const struct param *row, struct buf *out)
{
    static const char *const words[] = {
        [PARAM_BOOL] = "yes or no",
        [PARAM_PORT] = "a port from 0 to 65535",
        [PARAM_PORTS] = "a range of ports like 22500-22600",
        [PARAM_HOST_PORT] = "one host or host:port ([::1]:5570 for IPv6)",
        [PARAM_HOST_PORTS] = "host or host:port, several separated by commas",
        [PARAM_LIST] = "a text",
        [PARAM_STRING] = "a text",
    };
    if (row->type == PARAM_ENUM)
        buf_printf(out, "one of %s", row->allowed);
    else if (row->type == PARAM_UNSIGNED)
        describe_range(row, "a number", out);
    else if (row->type == PARAM_SIZE)
        describe_range(row, "a size in bytes (512, 64k, 16m, 1g)", out);
    else if (row->type == PARAM_DURATION)
        describe_range(row, "a time (250ms, 3s, 5m, 1h)", out);
    else
        buf_printf(out, "%s", words[row->type]);
}

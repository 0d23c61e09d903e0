/* SPDX-License-Identifier: Apache-2.0 */
#include "common/name.h"

#define NAME_MAX_SIZE 128u

static bool name_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == ':' || c == '/' || c == '+' || c == '-';
}

static bool bytes_valid(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!name_byte(data[i]))
            return false;
    return true;
}

static bool pattern_open(struct slice pattern)
{
    return pattern.size > 0 && pattern.data[pattern.size - 1] == '*';
}

bool name_valid(struct slice name)
{
    return name.size >= 1 && name.size <= NAME_MAX_SIZE && bytes_valid(name.data, name.size);
}

bool name_pattern_valid(struct slice pattern)
{
    if (!pattern_open(pattern))
        return name_valid(pattern);
    return pattern.size <= NAME_MAX_SIZE && bytes_valid(pattern.data, pattern.size - 1);
}

bool name_matches(struct slice pattern, struct slice name)
{
    if (!pattern_open(pattern))
        return slice_equal(pattern, name);
    /* A name's beginning may be the whole name: "mail.*" matches "mail." too. */
    size_t fixed = pattern.size - 1;
    return name.size >= fixed && (fixed == 0 || memcmp(pattern.data, name.data, fixed) == 0);
}

unsigned name_specificity(struct slice pattern)
{
    /* Every open pattern has at most 127 fixed bytes, so the exact ones start above that. */
    if (pattern_open(pattern))
        return (unsigned)pattern.size - 1;
    return NAME_MAX_SIZE + (unsigned)pattern.size;
}

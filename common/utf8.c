/* SPDX-License-Identifier: Apache-2.0 */
#include "common/utf8.h"

/* RFC 3629: nothing longer than it need be, no surrogates, nothing above U+10FFFF. */
static bool second_fits(uint8_t first, uint8_t second)
{
    switch (first) {
    case 0xe0:
        return second >= 0xa0;
    case 0xed:
        return second < 0xa0;
    case 0xf0:
        return second >= 0x90;
    case 0xf4:
        return second < 0x90;
    default:
        return true;
    }
}

size_t utf8_size(const uint8_t *at, size_t left)
{
    size_t size = *at < 0x80   ? 1
                  : *at < 0xc2 ? 0
                  : *at < 0xe0 ? 2
                  : *at < 0xf0 ? 3
                  : *at < 0xf5 ? 4
                               : 0;
    if (size == 0 || size > left)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    return size > 1 && !second_fits(at[0], at[1]) ? 0 : size;
}

bool utf8_control(const uint8_t *at, size_t size)
{
    return at[0] < 0x20 || at[0] == 0x7f || (at[0] == 0xc2 && size == 2 && at[1] < 0xa0);
}

void utf8_repair(void *text, size_t size)
{
    uint8_t *bytes = text;
    for (size_t i = 0; i < size;) {
        size_t n = utf8_size(bytes + i, size - i);
        if (n == 0 || bytes[i] == 0) {
            bytes[i] = '?';
            n = 1;
        }
        i += n;
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* map_halt: --halt never | now|soon,fail|success|done=N|N%, as in GNU parallel. */
#include <stdlib.h>
#include <string.h>

#include "client/map.h"

#define PERCENT_FROM 3u /* a share means nothing before so many have ended */

static bool parse_reason(const char *text, size_t size, struct halt *halt)
{
    static const char *const names[] = {"", "fail", "success", "done"};
    for (unsigned i = HALT_FAIL; i <= HALT_DONE; i++)
        if (strlen(names[i]) == size && memcmp(names[i], text, size) == 0) {
            halt->on = i;
            return true;
        }
    return false;
}

bool halt_parse(const char *text, struct halt *halt)
{
    *halt = (struct halt){.on = HALT_NEVER};
    if (strcmp(text, "never") == 0)
        return true;
    halt->now = strncmp(text, "now,", 4) == 0;
    if (!halt->now && strncmp(text, "soon,", 5) != 0)
        return false;
    text += halt->now ? 4 : 5;
    const char *equals = strchr(text, '=');
    if (!equals || !parse_reason(text, (size_t)(equals - text), halt))
        return false;
    char *end;
    halt->value = strtod(equals + 1, &end);
    halt->percent = *end == '%';
    return end != equals + 1 && !end[halt->percent] && halt->value > 0 &&
           (!halt->percent || halt->value <= 100);
}

/* A share of all needs to know how many there are; without that it never holds. */
bool halt_reached(const struct map *m)
{
    const struct halt *h = &m->halt;
    uint64_t count = h->on == HALT_FAIL      ? m->failed
                     : h->on == HALT_SUCCESS ? m->finished - m->failed
                                             : m->finished;
    if (h->on == HALT_NEVER || count == 0)
        return false;
    if (!h->percent)
        return (double)count >= h->value;
    if (h->on == HALT_DONE)
        return m->total && (double)count * 100 >= h->value * (double)m->total;
    return m->finished >= PERCENT_FROM && (double)count * 100 >= h->value * (double)m->finished;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idindex: u64 id -> u32 value, for ids that are handed out in sequence.
 *
 * Values lie in pages of 64 ids, and only the pages are hashed: sixteen ids that came together
 * share a cache line, and the table of ten million is that of 160,000 pages, so that no growth of
 * it holds a server up. A page goes when it is empty. An id that is alone costs a page, 300 bytes.
 */
#ifndef COMMON_IDINDEX_H
#define COMMON_IDINDEX_H

#include "common/map.h"

struct idindex_page;

struct idindex {
    struct idmap pages;         /* by number, which is id / 64, + 1 */
    struct idindex_page *last;  /* that was put into; NULL: it has gone */
    struct idindex_page *empty; /* the only one that is; NULL: none */
    size_t count;               /* of ids */
};

void idindex_free(struct idindex *x);
/* Neither is 0; it replaces. False: no memory. */
bool idindex_put(struct idindex *x, uint64_t id, uint32_t value);
uint32_t idindex_get(const struct idindex *x, uint64_t id); /* 0: it is not there */
/* Those of `id`, a multiple of 4, and of the next three; NULL: none of them is there. */
const uint32_t *idindex_four(const struct idindex *x, uint64_t id);
void idindex_remove(struct idindex *x, uint64_t id); /* if it is there */

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "common/idindex.h"

#include <assert.h>
#include <stdlib.h>

#define PAGE_IDS 64u

struct idindex_page {
    uint64_t number;
    uint32_t count;            /* of values that are not 0 */
    uint32_t values[PAGE_IDS]; /* 0: not there */
};

static struct idindex_page *page_find(const struct idindex *x, uint64_t number)
{
    if (x->last && x->last->number == number)
        return x->last;
    return idmap_pointer(&x->pages, number + 1);
}

static struct idindex_page *page_new(struct idindex *x, uint64_t number)
{
    struct idindex_page *page = calloc(1, sizeof *page);
    if (!page)
        return NULL;
    page->number = number;
    if (idmap_put(&x->pages, number + 1, (uintptr_t)page))
        return page;
    free(page);
    return NULL;
}

static void page_free(struct idindex *x, struct idindex_page *page)
{
    if (!page)
        return;
    assert(page->count == 0);
    if (x->last == page)
        x->last = NULL;
    idmap_remove(&x->pages, page->number + 1);
    free(page);
}

bool idindex_put(struct idindex *x, uint64_t id, uint32_t value)
{
    struct idindex_page *page = page_find(x, id / PAGE_IDS);
    assert(id != 0 && value != 0);
    if (!page && !(page = page_new(x, id / PAGE_IDS)))
        return false;
    if (x->empty == page)
        x->empty = NULL;
    uint32_t *at = &page->values[id % PAGE_IDS];
    page->count += *at == 0;
    x->count += *at == 0;
    *at = value;
    x->last = page;
    return true;
}

uint32_t idindex_get(const struct idindex *x, uint64_t id)
{
    const struct idindex_page *page = page_find(x, id / PAGE_IDS);
    return page ? page->values[id % PAGE_IDS] : 0;
}

const uint32_t *idindex_four(const struct idindex *x, uint64_t id)
{
    const struct idindex_page *page = page_find(x, id / PAGE_IDS);
    assert(id % 4 == 0);
    return page ? &page->values[id % PAGE_IDS] : NULL;
}

void idindex_remove(struct idindex *x, uint64_t id)
{
    struct idindex_page *page = page_find(x, id / PAGE_IDS);
    if (!page || !page->values[id % PAGE_IDS])
        return;
    page->values[id % PAGE_IDS] = 0;
    x->count--;
    if (--page->count > 0)
        return;
    page_free(x, x->empty);
    x->empty = page;
}

void idindex_free(struct idindex *x)
{
    struct idmap_cell cell;
    for (size_t place = 0; idmap_next(&x->pages, &place, &cell);)
        free((void *)(uintptr_t)cell.value);
    idmap_free(&x->pages);
    *x = (struct idindex){0};
}

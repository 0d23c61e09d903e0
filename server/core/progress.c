/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far an attempt is, as its handler has said last: for those who ask, or begin to wait, only
 * after it was said. It is over with the attempt, so there are no more of them than slots.
 */
#include <assert.h>
#include <stdlib.h>
#include "server/core/verbs.h"

#define TEXT_MOST 200u /* bytes of its text that are kept */

struct progress {
    uint64_t done, total;
    size_t size; /* of the text that follows */
};

static struct slice progress_text(const struct progress *p)
{
    return p->size ? slice_of(p + 1, p->size) : (struct slice){0};
}

/* Not in the middle of a character of UTF-8. */
static size_t kept_size(struct slice text)
{
    size_t size = text.size < TEXT_MOST ? text.size : TEXT_MOST;
    while (size > 0 && size < text.size && (text.data[size] & 0xc0) == 0x80)
        size--;
    return size;
}

/* Without memory nobody hears of it later. */
void progress_keep(struct task *t, const struct answer *a)
{
    struct rare *rare = task_rare(t);
    size_t size = kept_size(a->data);
    assert(t->state == TASK_LEASED);
    struct progress *p = rare ? realloc(rare->progress, sizeof *p + size) : NULL;
    if (!p)
        return;
    *p = (struct progress){a->number, a->total, size};
    if (size)
        memcpy(p + 1, a->data.data, size);
    rare->progress = p;
}

void progress_drop(struct rare *rare)
{
    free(rare->progress);
    rare->progress = NULL;
}

void progress_show(struct core *c, const struct task *t, struct msg_task_row *row)
{
    const struct progress *p = t->rare ? t->rare->progress : NULL;
    if (!p)
        return;
    assert(t->state == TASK_LEASED);
    row->done = p->done;
    row->total = p->total;
    row->progress = arena_slice(c, progress_text(p));
}

/* To one who begins to follow now. */
void progress_tell(struct core *c, const struct task *t, const struct follower *f)
{
    const struct progress *p = t->rare ? t->rare->progress : NULL;
    assert(f->level <= FOLLOW_ALL);
    if (!p || f->level != FOLLOW_ALL)
        return;
    struct msg_task_progress row = {.id = t->record.id,
        .done = p->done,
        .total = p->total,
        .text = arena_slice(c, progress_text(p))};
    out_row(c, follower_conn(f), f->request, MSG_TASK_PROGRESS, &row, sizeof row);
}

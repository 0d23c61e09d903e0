/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/disk.h"

#include <stdlib.h>
#include <string.h>

/* The simulation does not test the lack of memory: that would only hide what it looks for. */
static void *need(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

void *array_add(void **array, size_t *count, size_t *room, size_t size)
{
    if (*count == *room) {
        *room = *room ? *room * 2 : 16;
        *array = need(realloc(*array, *room * size));
    }
    void *place = (char *)*array + *count * size;
    memset(place, 0, size);
    (*count)++;
    return place;
}

struct slice slice_copy(struct slice from)
{
    if (!from.data)
        return from;
    uint8_t *bytes = need(malloc(from.size + 1));
    memcpy(bytes, from.data, from.size);
    return slice_of(bytes, from.size);
}

void slice_free(struct slice slice)
{
    free((void *)(uintptr_t)slice.data);
}

void record_copy(struct record *to, const struct record *from)
{
    *to = *from;
    to->queue = slice_copy(from->queue);
    to->payload = from->body ? body_slice(body_ref(from->body)) : slice_copy(from->payload);
    to->headers = slice_copy(from->headers);
    to->tag = slice_copy(from->tag);
    to->unique = slice_copy(from->unique);
    to->target = slice_copy(from->target);
    to->history = slice_copy(from->history);
}

void record_free(struct record *r)
{
    if (r->body)
        body_unref(r->body);
    else
        slice_free(r->payload);
    slice_free(r->queue);
    slice_free(r->headers);
    slice_free(r->tag);
    slice_free(r->unique);
    slice_free(r->target);
    slice_free(r->history);
    memset(r, 0, sizeof *r);
}

void finish_copy(struct finish *to, const struct finish *from)
{
    *to = *from;
    to->result = from->body ? body_slice(body_ref(from->body)) : slice_copy(from->result);
    to->text = slice_copy(from->text);
    to->tag = slice_copy(from->tag);
    to->history = slice_copy(from->history);
}

void finish_free(struct finish *f)
{
    if (f->body)
        body_unref(f->body);
    else
        slice_free(f->result);
    slice_free(f->text);
    slice_free(f->tag);
    slice_free(f->history);
    memset(f, 0, sizeof *f);
}

struct entry *entry_copy(const struct entry *from)
{
    struct entry *to = need(malloc(sizeof *to));
    *to = *from;
    record_copy(&to->record, &from->record);
    finish_copy(&to->finish, &from->finish);
    return to;
}

void entry_free(struct entry *e)
{
    record_free(&e->record);
    finish_free(&e->finish);
    free(e);
}

struct disk_op *op_copy(const struct store_op *op, uint64_t now_ms)
{
    struct disk_op *copy = need(calloc(1, sizeof *copy));
    copy->op = *op;
    copy->now_ms = now_ms;
    copy->op.queue = slice_copy(op->queue);
    copy->op.instance = slice_copy(op->instance);
    if (op->record) {
        record_copy(&copy->record, op->record);
        copy->op.record = &copy->record;
    }
    if (op->finish) {
        finish_copy(&copy->finish, op->finish);
        copy->op.finish = &copy->finish;
    }
    if (op->keep_count) {
        uint64_t *keep = need(malloc(op->keep_count * sizeof *keep));
        memcpy(keep, op->keep, op->keep_count * sizeof *keep);
        copy->op.keep = keep;
    }
    return copy;
}

void op_free(struct disk_op *copy)
{
    if (copy->op.record)
        record_free(&copy->record);
    if (copy->op.finish)
        finish_free(&copy->finish);
    if (copy->op.keep_count)
        free((void *)(uintptr_t)copy->op.keep);
    slice_free(copy->op.queue);
    slice_free(copy->op.instance);
    free(copy);
}

bool op_writes(const struct store_op *op)
{
    return op->kind != STORE_LOOKUP && op->kind != STORE_SCAN;
}

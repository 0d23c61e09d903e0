/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results: each eight bytes of one are drawn from the lease of its attempt and from their place. So
 * a piece that is missing, comes twice, or is of another attempt makes a result that nobody gave.
 */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define RESULT_LEAST  32u /* bytes */
#define RESULT_PIECES 24u /* of one that comes in pieces, at the most */

struct result_head {
    uint64_t id, lease, size;
};

static uint64_t result_word(uint64_t lease, size_t at)
{
    uint64_t z =
        (lease + (uint64_t)at * UINT64_C(0x94d049bb133111eb)) * UINT64_C(0x9e3779b97f4a7c15);
    return (z ^ (z >> 29)) * UINT64_C(0xbf58476d1ce4e5b9);
}

static void result_fill(uint8_t *bytes, const struct result_head *head)
{
    memcpy(bytes, head, sizeof *head);
    for (size_t at = sizeof *head; at < head->size; at += 8) {
        uint64_t word = result_word(head->lease, at);
        size_t left = (size_t)head->size - at;
        memcpy(bytes + at, &word, left < 8 ? left : 8);
    }
}

static uint64_t result_size(struct sim *sim)
{
    const struct plan *p = &sim->plan;
    if (sim_chance(sim, p->pieces))
        return sim_between(sim, RESULT_LEAST, RESULT_LEAST + RESULT_PIECES * p->part_bytes);
    bool big = !p->part_bytes && sim_chance(sim, p->big);
    return big ? sim_between(sim, 1000, 300000) : RESULT_LEAST;
}

struct body *result_new(struct sim *sim, uint64_t id, uint64_t lease)
{
    struct result_head head = {id, lease, result_size(sim)};
    struct body *body = body_new((size_t)head.size);
    if (!body)
        abort();
    result_fill(body->data, &head);
    return body;
}

/* Exactly what one attempt of this task gave: all of it, and nothing else. */
void result_check(struct sim *sim, const struct sub *sub, struct slice result)
{
    struct result_head head;
    unsigned long long id = sub->id;
    SIM_CHECK(
        sim, result.size >= sizeof head, "task %llu has a result of %zu bytes", id, result.size);
    memcpy(&head, result.data, sizeof head);
    SIM_CHECK(sim, head.id == sub->id, "task %llu has the result of another", id);
    SIM_CHECK(sim, head.size == result.size, "task %llu has %zu bytes of a result of %llu", id,
        result.size, (unsigned long long)head.size);
    uint8_t *whole = malloc(result.size);
    if (!whole)
        abort();
    result_fill(whole, &head);
    SIM_CHECK(sim, memcmp(whole, result.data, result.size) == 0,
        "task %llu has pieces of a result that nobody gave", id);
    free(whole);
}

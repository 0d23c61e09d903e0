/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_fault: a store around another one, that does what disks do on bad days.
 *
 * Operations wait here (copied) until they are committed: only then does the inner store see
 * them, and only then do their events come. So a crash loses exactly what was not committed, and
 * what the inner store holds is what was on disk. Everything follows from the plan and its seed.
 *
 * Use it with store_mem_plain for simulations (store_fault_crash() reopens in place), or with any
 * backend through fault_ops, whose `close` closes the inner one too.
 */
#ifndef TESTS_STORE_STORE_FAULT_H
#define TESTS_STORE_STORE_FAULT_H

#include "server/store/store.h"

/* All zero: nothing fails, and every poll() commits what was submitted. */
struct fault_plan {
    uint64_t seed;
    uint64_t refuse_at;    /* the Nth write since the plan was set (from 1) is REFUSED; 0: none */
    uint64_t refuse_count; /* that many in a row; 0: 1 */
    uint32_t refuse_code;  /* 0: PUSHROD_E_STORE_FULL */
    bool announce;         /* DOWN before the first failure's event, UP after the last */
    uint32_t max_delay;    /* a batch is committed after 0..max_delay polls */
    bool manual;           /* commits only in store_fault_commit() */
};

/* An op that can fail: APPEND, FINISH, RESCHEDULE, FETCH, DUE, FORGET, REVIVE, DROP, PURGE, IDS,
 * QUEUE, WORKER; LOOKUP and SCAN only read, and never fail here. */

struct store *store_fault_open(const struct store_ops *inner, const struct store_config *config,
    const struct fault_plan *plan, struct store_opened *opened, char **error);
extern const struct store_ops store_fault_ops; /* submit, poll, close; open is store_fault_open() */

void store_fault_plan(struct store *s, const struct fault_plan *plan); /* counts start anew */
void store_fault_commit(struct store *s); /* everything submitted so far; events at the next poll */
uint64_t store_fault_writes(const struct store *s);  /* operations that could fail, so far */
uint64_t store_fault_pending(const struct store *s); /* operations that wait for their commit */

/*
 * The process dies and starts again: uncommitted operations and unread events are lost, *opened
 * is what the next life sees. Only around store_mem_plain.
 */
void store_fault_crash(struct store *s, uint64_t now_ms, struct store_opened *opened);

/* The backend's table of operations of any store (each store starts with it). */
const struct store_ops *store_ops_of(const struct store *s);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_mem: what the memory store has beyond the table of operations, for tests.
 */
#ifndef SERVER_STORE_STORE_MEM_H
#define SERVER_STORE_STORE_MEM_H

#include "server/store/store.h"

/* The same store without `bypass`: the core must use it as if it were a disk. */
extern const struct store_ops store_mem_plain;

/*
 * As if the process had ended and opened the store again: events that were not polled are gone,
 * the boot number rises, records that may run are marked so, *opened is filled again. What was
 * submitted is all there, as after a clean stop.
 */
void store_mem_restart(struct store *s, uint64_t now_ms, struct store_opened *opened);

#endif

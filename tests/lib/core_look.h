/* SPDX-License-Identifier: Apache-2.0 */
/* core_look: what a core has in memory, for tests that see it from the outside. */
#ifndef TESTS_CORE_LOOK_H
#define TESTS_CORE_LOOK_H

#include "common/slice.h"
#include "server/core/core.h"

/* It is in memory: not in the store only. */
bool core_has(const struct core *core, uint64_t id);

/* Calls fn for the payload of each task. */
void core_each_payload(struct core *core, void (*fn)(struct slice payload));

/* What is not at its end, or is still counted as such; NULL: nothing. `exact`: neither was the
 * server started anew nor was an fsync lost, and nothing was replayed, so that all counts add up.
 */
const char *core_left(struct core *core, bool exact);

#endif

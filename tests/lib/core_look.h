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

#endif

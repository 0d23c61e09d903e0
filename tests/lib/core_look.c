/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/core_look.h"

#include "server/core/verbs.h"

bool core_has(const struct core *core, uint64_t id)
{
    return ledger_find(&core->ledger, id);
}

void core_each_payload(struct core *core, void (*fn)(struct slice payload))
{
    for (uint32_t slot = 0; slot < core->ledger.used; slot++) {
        const struct task *t = ledger_at(&core->ledger, slot);
        if (t)
            fn(t->record.payload);
    }
}

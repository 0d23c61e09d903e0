/* SPDX-License-Identifier: Apache-2.0 */
#include "client/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

/* A signal handler has no other way to know these. */
static atomic_uint interrupts;
static _Atomic(struct pushrod_client *) interrupted;

static void on_signal(int number)
{
    (void)number;
    struct pushrod_client *c = atomic_load(&interrupted);
    /* The second one does not wait for anything any more. */
    if (atomic_fetch_add(&interrupts, 1) >= 1 || !c)
        _exit(130);
    pushrod_client_interrupt(c);
}

/* What nohup and a shell's & had ignored stays so. */
void interrupt_setup(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction old, action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
}

void interrupt_client(struct pushrod_client *c)
{
    atomic_store(&interrupted, c);
}

unsigned interrupt_count(void)
{
    return atomic_load(&interrupts);
}

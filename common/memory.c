/* SPDX-License-Identifier: Apache-2.0 */
#include "common/memory.h"

#include <malloc.h>

/* The largest that glibc takes; a body has at most 16 MiB by default. */
#define MMAP_BYTES (32 << 20)
/* Free bytes at the end of a heap: as many as a few lanes have outstanding. */
#define TRIM_BYTES (16 << 20)

void memory_keep_large(void)
{
    mallopt(M_MMAP_THRESHOLD, MMAP_BYTES);
    mallopt(M_TRIM_THRESHOLD, TRIM_BYTES);
}

void memory_give_back(void)
{
    malloc_trim(0);
}

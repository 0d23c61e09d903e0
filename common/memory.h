/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory: how the C library's allocator treats the large blocks of a program of ours.
 *
 * Payloads of 64 KiB and more come and go thousands of times a second. glibc gives such blocks back
 * to the kernel at once (M_TRIM_THRESHOLD is 128 KiB, M_MMAP_THRESHOLD too), and each one that
 * follows is paged in and cleared anew: up to half of what a worker did with one.
 */
#ifndef COMMON_MEMORY_H
#define COMMON_MEMORY_H

/* Once, by a program and not by the library: the allocator is the whole process's. */
void memory_keep_large(void);

/* What is free goes back to the kernel, but for what lies between used blocks of a page: after
 * something that will not come again. Takes some microseconds for each MiB. */
void memory_give_back(void);

#endif

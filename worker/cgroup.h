/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup: how many CPUs the limits of our control groups leave us; versions 1 and 2. */
#ifndef WORKER_CGROUP_H
#define WORKER_CGROUP_H

/*
 * `file`: our groups, as /proc/self/cgroup; `root`: where they are mounted, as /sys/fs/cgroup. The
 * tightest limit of our group and those above it, rounded up; 0: there is none.
 */
unsigned cgroup_cpus(const char *file, const char *root);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of control groups, in trees of both versions that are made here. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "worker/cgroup.h"

static char root[] = "/tmp/pushrod-cgroup-XXXXXX";

/* Makes the directories on the way as well. */
static void put(const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *at = path + strlen(root) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        mkdir(path, 0700);
        *at = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static unsigned cpus(const char *groups)
{
    char path[300];
    put("groups", groups);
    snprintf(path, sizeof path, "%s/groups", root);
    return cgroup_cpus(path, root);
}

static int start(void **state)
{
    (void)state;
    strcpy(root + strlen(root) - 6, "XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static void version_2_rounds_up(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned cpus;
    } limits[] = {{"max 100000\n", 0}, {"50000 100000\n", 1}, {"150000 100000\n", 2},
        {"200000 100000\n", 2}, {"garbage\n", 0}, {"", 0}, {"100000 0\n", 0},
        {"9223372036854775807 1\n", 0}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        put("a/b/cpu.max", limits[i].text);
        assert_int_equal(cpus("0::/a/b\n"), limits[i].cpus);
    }
}

static void the_tightest_on_the_way_up_counts(void **state)
{
    (void)state;
    put("pod/one/cpu.max", "400000 100000\n");
    put("pod/cpu.max", "150000 100000\n");
    assert_int_equal(cpus("0::/pod/one\n"), 2);
    put("pod/one/cpu.max", "50000 100000\n");
    assert_int_equal(cpus("0::/pod/one\n"), 1);
}

static void a_container_sees_its_own_as_the_root(void **state)
{
    (void)state;
    put("cpu.max", "150000 100000\n");
    assert_int_equal(cpus("0::/\n"), 2);
    assert_int_equal(cpus("0::/docker/not/to/be/seen\n"), 2);
}

static void version_1_has_two_files(void **state)
{
    (void)state;
    static const char groups[] =
        "12:cpuset:/x\n4:cpu,cpuacct:/docker/one\n1:name=systemd:/y\n0::/\n";
    put("cpu,cpuacct/docker/one/cpu.cfs_quota_us", "-1\n");
    put("cpu,cpuacct/docker/one/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus(groups), 0);
    put("cpu,cpuacct/docker/one/cpu.cfs_quota_us", "250000\n");
    assert_int_equal(cpus(groups), 3);
    put("cpu/cpu.cfs_quota_us", "50000\n");
    put("cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus(groups), 1);
}

static void no_groups_no_limit(void **state)
{
    (void)state;
    assert_int_equal(cgroup_cpus("/no/such/file", root), 0);
    assert_int_equal(cpus(""), 0);
    assert_int_equal(cpus("nothing\n:\n::\n:::\n0:\n"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(version_2_rounds_up),
        TEST(the_tightest_on_the_way_up_counts),
        TEST(a_container_sees_its_own_as_the_root),
        TEST(version_1_has_two_files),
        TEST(no_groups_no_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/run_play.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"

#define LIMIT_NS UINT64_C(20000000000)

struct handler run_play_command(const struct handler_ops *ops, const char *command)
{
    return (struct handler){.ops = ops, .command = (char *)(uintptr_t)command};
}

void run_play_start(struct run_play *p, struct handler handler, struct run_config config)
{
    memset(p, 0, sizeof *p);
    p->handler = handler;
    p->handler.pattern = (char *)(uintptr_t) "*";
    config.slots = config.slots ? config.slots : 1;
    config.max_result = config.max_result ? config.max_result : 1 << 20;
    config.ahead = RUN_PLAY_MAX - config.slots;
    config.handlers = &p->handler;
    config.handler_count = 1;
    p->run = run_new(&config);
    assert_non_null(p->run);
}

void run_play_stop(struct run_play *p)
{
    assert_true(run_free(p->run, 20000));
    for (size_t i = 0; i < p->given; i++) {
        buf_free(&p->outcomes[i].result);
        buf_free(&p->outcomes[i].data);
    }
}

uint64_t run_play_give_like(struct run_play *p, struct attempt attempt)
{
    assert_true(p->given < RUN_PLAY_MAX);
    struct attempt *a = &p->attempts[p->given++];
    *a = attempt;
    a->lease = p->given;
    a->id = a->id ? a->id : 1000 + p->given;
    a->number = a->number ? a->number : 1;
    if (!a->queue.data)
        a->queue = slice_str("q");
    const struct attempt *one = a;
    run_start(p->run, &one, 1);
    return a->lease;
}

uint64_t run_play_give(struct run_play *p, const void *payload, size_t size)
{
    return run_play_give_like(p, (struct attempt){.payload = slice_of(payload, size)});
}

static void take_end(struct outcome *o, const struct report *r)
{
    const struct pushrod_task *task = r->task;
    o->ended = true;
    o->kind = r->kind;
    o->run_ns = task->run_ns;
    o->code = task->failure.code;
    o->permanent = task->failure.permanent;
    o->retry_ms = task->failure.retry_ms;
    buf_append(&o->result, task->result.data, task->result.size);
    buf_append(&o->result, "", 1);
    o->result.size--;
    snprintf(o->text, sizeof o->text, "%.*s", (int)task->failure.text.size,
        task->failure.text.size ? (const char *)task->failure.text.data : "");
}

static void take(struct run_play *p, const struct report *r)
{
    struct outcome *o = &p->outcomes[r->lease - 1];
    assert_false(o->ended);
    if (r->kind == REPORT_PROGRESS) {
        o->progress++;
        o->done = r->done;
        o->total = r->total;
        snprintf(o->text, sizeof o->text, "%.*s", (int)r->size, (const char *)r->data);
    } else if (r->kind == REPORT_DATA) {
        buf_append(&o->data, r->data, r->size);
    } else {
        take_end(o, r);
        p->ended++;
    }
}

void run_play_until(struct run_play *p, bool (*condition)(void *arg), void *arg)
{
    uint64_t begin_ns = clock_now().mono_ns;
    while (!condition(arg)) {
        struct pollfd f = {.fd = run_fd(p->run), .events = POLLIN};
        poll(&f, 1, 20);
        for (struct report *r = run_take(p->run), *next; r; r = next) {
            next = r->next;
            take(p, r);
            run_release(p->run, r);
        }
        assert_true(clock_now().mono_ns - begin_ns < LIMIT_NS);
    }
}

static bool has_ended(void *arg)
{
    return ((struct outcome *)arg)->ended;
}

struct outcome *run_play_wait(struct run_play *p, uint64_t lease)
{
    struct outcome *o = &p->outcomes[lease - 1];
    run_play_until(p, has_ended, o);
    return o;
}

static bool all_ended(void *arg)
{
    const struct run_play *p = arg;
    return p->ended == p->given;
}

void run_play_wait_all(struct run_play *p)
{
    run_play_until(p, all_ended, p);
}

struct outcome *run_play_do(struct run_play *p, const char *payload)
{
    return run_play_wait(p, run_play_give(p, payload, strlen(payload)));
}

bool run_play_forbid_pidfd(void)
{
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (fd < 0)
        return false;
    close(fd);
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof rules / sizeof rules[0], .filter = rules};
    assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    assert_int_equal(syscall(SYS_pidfd_open, getpid(), 0), -1);
    return true;
}

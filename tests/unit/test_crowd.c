/* SPDX-License-Identifier: Apache-2.0 */
/* Strangers whose connections are watched: what the server does for one that sends too much. */
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/memory.h"
#include "server/net/crowd.h"

#define MAX_BYTES 1000u
#define STRANGERS 8u

static unsigned given_back;

/* In the place of the true one, which the library does not need besides. */
void memory_give_back(void)
{
    given_back++;
}

/* The two ends of a connection, and a crowd that watches the server's. */
struct play {
    struct loop *loop;
    struct crowd crowd;
    uint64_t shut;
    struct sockaddr_in at;
    int listener;
};

static void begin(struct play *p)
{
    socklen_t size = sizeof p->at;
    *p = (struct play){.loop = loop_new()};
    assert_non_null(p->loop);
    p->at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&p->at, size), 0);
    assert_int_equal(listen(p->listener, 1), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&p->at, &size), 0);
    crowd_start(&p->crowd, p->loop, &(struct crowd_limits){.most = 10, .max_bytes = MAX_BYTES},
        ntohs(p->at.sin_port), "", &p->shut);
    given_back = 0;
}

static void end(struct play *p)
{
    crowd_stop(&p->crowd);
    close(p->listener);
    loop_free(p->loop);
}

/* One comes, sends too much, and is shut. */
static void stranger(struct play *p)
{
    static const char bytes[2 * MAX_BYTES];
    uint64_t shut = p->shut;
    int far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(far, (struct sockaddr *)&p->at, sizeof p->at), 0);
    int near = accept(p->listener, NULL, NULL);
    assert_true(near >= 0);
    crowd_came(&p->crowd, near);
    assert_int_equal(write(far, bytes, sizeof bytes), sizeof bytes);
    while (p->shut == shut)
        loop_turn(p->loop, true);
    assert_int_equal(p->crowd.count, 0);
    close(near);
    close(far);
}

/* None sends too much, but all together do: those go that have more than their share. */
static void together_they_send_too_much(void **state)
{
    static const char bytes[MAX_BYTES];
    struct play p;
    int far[4], near[4];
    (void)state;
    begin(&p);
    p.crowd.limits.all_bytes = 2 * MAX_BYTES;
    for (size_t i = 0; i < 4; i++) {
        far[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(far[i], (struct sockaddr *)&p.at, sizeof p.at), 0);
        near[i] = accept(p.listener, NULL, NULL);
        crowd_came(&p.crowd, near[i]);
        size_t size = i == 1 ? MAX_BYTES / 4 : MAX_BYTES * 3 / 4;
        assert_int_equal(write(far[i], bytes, size), size);
    }
    while (p.shut == 0)
        loop_turn(p.loop, true);
    assert_int_equal(p.shut, 3);
    assert_int_equal(p.crowd.count, 1);
    assert_int_equal(p.crowd.visitors[0].fd, near[1]);
    for (size_t i = 0; i < 4; i++) {
        close(near[i]);
        close(far[i]);
    }
    end(&p);
}

/* What libzmq kept for one may be free by then, or only later. */
static void memory_goes_back_after_one_that_was_heavy(void **state)
{
    struct play p;
    (void)state;
    begin(&p);
    stranger(&p);
    assert_int_equal(given_back, 0);
    while (heap_holds(&p.crowd.look.node)) /* until there is nothing to look at */
        loop_turn(p.loop, true);
    assert_int_equal(given_back, 3);
    end(&p);
}

/* With many free blocks it takes long: a few strangers must not keep the server at it. */
static void memory_goes_back_once_a_second_at_most(void **state)
{
    struct play p;
    (void)state;
    begin(&p);
    uint64_t begin_ns = loop_now(p.loop).mono_ns;
    for (unsigned i = 0; i < STRANGERS; i++)
        stranger(&p);
    uint64_t seconds = (loop_now(p.loop).mono_ns - begin_ns) / 1000000000u;
    assert_in_range(given_back, 1, 1 + seconds);
    unsigned before = given_back; /* of the last one, too */
    while (given_back == before)
        loop_turn(p.loop, true);
    end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(together_they_send_too_much),
        cmocka_unit_test(memory_goes_back_after_one_that_was_heavy),
        cmocka_unit_test(memory_goes_back_once_a_second_at_most),
    };
    return cmocka_run_group_tests_name("crowd", tests, NULL, NULL);
}

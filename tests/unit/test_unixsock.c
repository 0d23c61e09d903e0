/* SPDX-License-Identifier: Apache-2.0 */
/* Names of Unix sockets that leave no file: drawn, taken, dialled, told apart. */
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/unixsock.h"

static int listener(struct slice name)
{
    struct sockaddr_un at;
    socklen_t size = unixsock_address(&at, name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_not_equal(size, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static void names_differ(void **state)
{
    (void)state;
    char one[UNIXSOCK_BASE], other[UNIXSOCK_BASE];
    assert_true(unixsock_draw(one) && unixsock_draw(other));
    assert_string_not_equal(one, other);
    assert_int_equal(strlen(one), sizeof "pushrod-" - 1 + 32);
}

static void a_name_has_1_to_107_bytes(void **state)
{
    (void)state;
    struct sockaddr_un at;
    char text[108];
    memset(text, 'x', sizeof text);
    assert_int_equal(unixsock_address(&at, slice_of(text, 0)), 0);
    assert_int_equal(unixsock_address(&at, slice_of(text, sizeof text)), 0);
    assert_int_equal(unixsock_address(&at, slice_of(text, sizeof text - 1)), sizeof at);
    assert_int_equal(unixsock_dial(slice_of(text, sizeof text)), -1);
    assert_false(unixsock_taken(slice_of(text, sizeof text)));
}

static void it_is_taken_while_somebody_listens(void **state)
{
    (void)state;
    char base[UNIXSOCK_BASE];
    assert_true(unixsock_draw(base));
    struct slice name = slice_str(base);
    assert_false(unixsock_taken(name));
    assert_int_equal(unixsock_dial(name), -1);
    int at = listener(name);
    assert_true(unixsock_taken(name));
    int near = unixsock_dial(name), far = accept(at, NULL, NULL);
    assert_true(near >= 0 && far >= 0);
    assert_true(unixsock_is(at, base) && unixsock_is(far, base));
    assert_false(unixsock_is(near, base)); /* it dialled: the name is the other end's */
    assert_false(unixsock_is(far, ""));
    assert_false(unixsock_is(0, base));
    close(near);
    close(far);
    close(at);
    assert_false(unixsock_taken(name));
}

static bool near(int family, const char *text)
{
    struct sockaddr_in of_four = {.sin_family = AF_INET, .sin_port = htons(1)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(1)};
    bool four = family == AF_INET;
    assert_int_equal(inet_pton(family, text, four ? (void *)&of_four.sin_addr : &six.sin6_addr), 1);
    return four ? unixsock_near((const struct sockaddr *)&of_four, sizeof of_four)
                : unixsock_near((const struct sockaddr *)&six, sizeof six);
}

static void only_addresses_of_this_host_are_near(void **state)
{
    (void)state;
    struct sockaddr_un here = {.sun_family = AF_UNIX};
    assert_true(near(AF_INET, "127.0.0.1"));
    assert_true(near(AF_INET, "127.0.0.2"));
    assert_false(near(AF_INET, "192.0.2.1")); /* for documents: nobody has it */
    assert_false(near(AF_INET6, "2001:db8::1"));
    assert_false(unixsock_near((const struct sockaddr *)&here, sizeof here));
}

static int room(int fd)
{
    int bytes = 0;
    socklen_t size = sizeof bytes;
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &size), 0);
    return bytes;
}

static void only_unix_sockets_are_widened(void **state)
{
    (void)state;
    int pair[2], tcp = socket(AF_INET, SOCK_STREAM, 0), before = room(tcp);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    int narrow = room(pair[0]);
    unixsock_widen(pair[0]);
    unixsock_widen(tcp);
    unixsock_widen(-1);
    assert_true(room(pair[0]) > narrow);
    assert_int_equal(room(tcp), before);
    close(pair[0]);
    close(pair[1]);
    close(tcp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_differ),
        cmocka_unit_test(a_name_has_1_to_107_bytes),
        cmocka_unit_test(it_is_taken_while_somebody_listens),
        cmocka_unit_test(only_addresses_of_this_host_are_near),
        cmocka_unit_test(only_unix_sockets_are_widened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

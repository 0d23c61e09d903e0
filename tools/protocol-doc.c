/* SPDX-License-Identifier: Apache-2.0 */
/* protocol-doc: prints the tables of every message and of the error codes, for proto/PROTOCOL.md.
 */
#include <pushrod/error.h>
#include <stdio.h>
#include <string.h>

#include "proto/messages.h"

struct field {
    const char *kind;
    const char *name;
    const char *text;
};

struct message {
    unsigned number;
    const char *name;
    enum msg_plane plane;
    const char *text;
    const struct field *fields;
};

/* Lists of fields, each ended by an empty one. */
#define F(kind, name, text) {#kind, #name, text},
#define M(number, NAME, name, plane, text)                                                         \
    static const struct field fields_##name[] = {FIELDS_##NAME(F){NULL, NULL, NULL}};
MESSAGES(M)
#undef M

static const struct message messages[] = {
#define M(number, NAME, name, plane, text) {number, #NAME, PLANE_##plane, text, fields_##name},
    MESSAGES(M)
#undef M
};

static const char *const planes[] = {
    [PLANE_JOIN_UP] = "Join socket: worker or supervisor to server",
    [PLANE_JOIN_DOWN] = "Join socket: server to worker",
    [PLANE_LANE] = "Lane: server to worker",
    [PLANE_ANSWERS] = "Answers socket: worker to server",
    [PLANE_CLIENT_UP] = "Client connection: client to server",
    [PLANE_CLIENT_DOWN] = "Client connection: server to client",
    [PLANE_NESTED] = "Nested: only inside another message's RAW field",
};

static void print_message(const struct message *m)
{
    printf("\n#### %u %s\n\n%c%s.\n\n", m->number, m->name,
        m->text[0] >= 'a' && m->text[0] <= 'z' ? m->text[0] - 'a' + 'A' : m->text[0], m->text + 1);
    printf("| # | field | kind | meaning |\n| --- | --- | --- | --- |\n");
    unsigned place = 1;
    for (const struct field *f = m->fields; f->name; f++)
        printf("| %u | `%s` | %s | %s |\n", place++, f->name, f->kind, f->text);
}

/* In the order of their numbers; which of them a peer can meet is said in the prose. */
static void print_errors(void)
{
    printf("\n### Error codes\n\n| number | name | text |\n| --- | --- | --- |\n");
#define X(name, number, text) printf("| %d | %s | %s |\n", number, #name, text);
    PUSHROD_ERRORS(X)
#undef X
}

int main(void)
{
    for (size_t plane = 0; plane < sizeof planes / sizeof *planes; plane++) {
        printf("%s### %s\n", plane ? "\n" : "", planes[plane]);
        for (size_t i = 0; i < sizeof messages / sizeof *messages; i++)
            if (messages[i].plane == plane)
                print_message(&messages[i]);
    }
    print_errors();
    return fflush(stdout) == 0 ? 0 : 1;
}

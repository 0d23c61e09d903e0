/* SPDX-License-Identifier: Apache-2.0 */
/*
 * again: a task that is to be submitted once more: what `submit` is given for it, and the dead one
 * that makes room for a changed one.
 */
#ifndef CLIENT_AGAIN_H
#define CLIENT_AGAIN_H

#include "client/command.h"

/* " --timeout 30s --header 'A=b c'": all that is not a default, for a shell. */
void again_flags(struct buf *out, const struct pushrod_options *options);

/* What is other about the new task. */
struct change {
    const char *queue;  /* NULL: the same */
    struct buf payload; /* if has_payload */
    bool has_payload;
};

/* The payload of a file, "-": standard input. Not 0: an exit code; it was reported. */
int change_read(struct cli *cli, struct change *change, const char *path);

/*
 * Submits the dead task changed, and drops it. *as: the new one; 0: there is none. Returns 0 or a
 * negative enum pushrod_error; `text` then says why, until the client is called again.
 */
int again_replay(
    struct cli *cli, const struct change *change, uint64_t id, uint64_t *as, const char **text);

#define AGAIN_MOST 64u /* that are replayed together */

/*
 * The same for each of the acts, or for the first of them if they are large: then *count says for
 * how many. Submissions are under way together, and then drops. Of one that was not done its act
 * has the error, and `as` if the new one is there: alone it may fare better, or say why it does
 * not. Returns 0, or the negative error that ended it, with its text in `why`.
 */
int again_replay_many(struct cli *cli, const struct change *change, struct json_act *acts,
    size_t *count, struct buf *why);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* rows: what the server lists, as rows of a table; shared by the commands that list and by top. */
#ifndef CLIENT_ROWS_H
#define CLIENT_ROWS_H

#include "client/command.h"

void rows_begin_workers(struct table *t);
void rows_worker(struct table *t, const struct pushrod_worker_info *w);

/* The rows of one answer: lines of JSON, printed as they come, or a table, printed at its end. */
struct listing {
    struct table table;
    bool json;
};

/* `rows`: as the request gave it. `none` is said if there are no rows. The exit code. */
int listing_end(struct cli *cli, struct listing *l, int64_t rows, const char *none);

#endif

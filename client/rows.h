/* SPDX-License-Identifier: Apache-2.0 */
/* rows: queues and workers as rows of a table; shared by the lists and by top. */
#ifndef CLIENT_ROWS_H
#define CLIENT_ROWS_H

#include "client/command.h"

void rows_begin_queues(struct table *t);
void rows_begin_workers(struct table *t);
void rows_queue(struct table *t, const struct pushrod_queue_info *q);
void rows_worker(struct table *t, const struct pushrod_worker_info *w);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/answer_parse.h"

#include <assert.h>

bool answer_frame_open(struct answer_frame *f, struct slice frame)
{
    *f = (struct answer_frame){.dec = dec_of(frame)};
    unsigned kind = dec_message(&f->dec);
    if (kind != MSG_FROM)
        dec_fail(&f->dec, "a frame of answers begins with FROM");
    else if (msg_from_decode(&f->dec, &f->from) && f->from.sequence == 0)
        dec_fail(&f->dec, "answers are counted from 1");
    f->sequence = f->from.sequence;
    return !dec_failed(&f->dec);
}

static void read_code(struct dec *d, uint64_t code, struct answer *a)
{
    if (code > UINT16_MAX)
        dec_fail(d, "there is no error with this number");
    a->code = (uint32_t)code;
}

static void read_ready(struct answer_frame *f)
{
    struct msg_ready m;
    if (msg_ready_decode(&f->dec, &m) && m.session != f->from.session)
        dec_fail(&f->dec, "READY is of another session");
}

static void read_started(struct dec *d, struct answer *a)
{
    struct msg_started m;
    if (!msg_started_decode(d, &m))
        return;
    a->id = m.id;
    a->lease = m.lease;
}

static void read_progress(struct dec *d, struct answer *a)
{
    struct msg_progress m;
    if (!msg_progress_decode(d, &m))
        return;
    a->id = m.id;
    a->lease = m.lease;
    a->number = m.done;
    a->total = m.total;
    a->data = m.text;
}

static void read_data(struct dec *d, struct answer *a)
{
    struct msg_data m;
    if (!msg_data_decode(d, &m))
        return;
    a->id = m.id;
    a->lease = m.lease;
    a->data = m.data;
}

static void read_part(struct dec *d, struct answer *a)
{
    struct msg_part m;
    if (!msg_part_decode(d, &m))
        return;
    a->id = m.id;
    a->lease = m.lease;
    a->number = m.total;
    a->data = m.data;
}

static void read_done(struct dec *d, struct answer *a)
{
    struct msg_task_done m;
    if (!msg_task_done_decode(d, &m))
        return;
    a->id = m.id;
    a->lease = m.lease;
    a->run_ns = m.run_ns;
    a->data = m.result;
}

static void read_failed(struct dec *d, struct answer *a)
{
    struct msg_task_failed m;
    if (!msg_task_failed_decode(d, &m))
        return;
    a->id = m.id;
    a->lease = m.lease;
    a->run_ns = m.run_ns;
    read_code(d, m.code, a);
    a->permanent = m.permanent;
    a->number = m.retry_ms;
    a->data = m.text;
    if (a->data.size > PUSHROD_MAX_ERROR_TEXT)
        dec_fail(d, "an error text is larger than 4 KiB");
}

static void read_returned(struct dec *d, struct answer *a)
{
    struct msg_returned m;
    if (!msg_returned_decode(d, &m))
        return;
    a->id = m.id;
    a->lease = m.lease;
    read_code(d, m.code, a);
}

static void read_heartbeat(struct answer_frame *f)
{
    struct msg_heartbeat m;
    if (msg_heartbeat_decode(&f->dec, &m))
        f->beat = true;
}

static void read_any(struct answer_frame *f, unsigned kind, struct answer *a)
{
    struct dec *d = &f->dec;
    switch (kind) {
    case MSG_TASK_DONE:
        read_done(d, a);
        break;
    case MSG_READY:
        read_ready(f);
        break;
    case MSG_STARTED:
        read_started(d, a);
        break;
    case MSG_PROGRESS:
        read_progress(d, a);
        break;
    case MSG_DATA:
        read_data(d, a);
        break;
    case MSG_PART:
        read_part(d, a);
        break;
    case MSG_TASK_FAILED:
        read_failed(d, a);
        break;
    case MSG_RETURNED:
        read_returned(d, a);
        break;
    case MSG_BYE:
        msg_bye_decode(d, &(struct msg_bye){0});
        break;
    default:
        dec_fail(d, "this message is not an answer");
    }
}

size_t answer_frame_read(struct answer_frame *f, struct answer *answers, size_t most)
{
    size_t count = 0;
    for (size_t i = 0; i < most && dec_more(&f->dec); i++) {
        unsigned kind = dec_message(&f->dec);
        if (kind == 0)
            break;
        if (kind == MSG_HEARTBEAT) {
            read_heartbeat(f);
            continue;
        }
        struct answer *a = &answers[count];
        *a = (struct answer){.kind = (uint16_t)kind, .sequence = f->sequence};
        read_any(f, kind, a);
        if (dec_failed(&f->dec))
            break;
        f->sequence++;
        count++;
    }
    return count;
}

const char *answer_frame_error(const struct answer_frame *f)
{
    return f->dec.error;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What handlers say: the output of a coprocess, lines on descriptor 3, standard error. And what
 * they are told: headers as JSON and as variables.
 */
#include <jansson.h>
#include <string.h>

#include "common/log.h"
#include "common/utf8.h"
#include "proto/codec.h"
#include "tests/fuzz/check.h"
#include "worker/environment.h"
#include "worker/notes.h"
#include "worker/run.h"
#include "worker/said.h"
#include "worker/talk.h"

static void check_text(struct slice text)
{
    for (size_t i = 0; i < text.size;) {
        size_t n = utf8_size(text.data + i, text.size - i);
        FUZZ_CHECK(n > 0 && text.data[i] != 0);
        i += n;
    }
}

/* In a block of its own size, so that a byte read too far is seen. */
static void coproc_says(const uint8_t *data, size_t size)
{
    while (size) {
        struct talk_message m;
        int known = talk_parse(slice_of(data, size), &m);
        FUZZ_CHECK(known >= -1 && known <= 1);
        if (known <= 0)
            return;
        FUZZ_CHECK(m.head > 0 && m.head <= size && memchr(m.text, 0, sizeof m.text));
        FUZZ_CHECK(m.done <= INT64_MAX && m.total <= INT64_MAX);
        if (m.size > size - m.head)
            return;
        data += m.head + m.size;
        size -= m.head + m.size;
    }
}

static void take_reports(struct run *run)
{
    for (struct report *r = run_take(run), *next; r; r = next) {
        next = r->next;
        FUZZ_CHECK(r->kind == REPORT_PROGRESS && r->done <= INT64_MAX && r->total <= INT64_MAX);
        check_text(slice_of(r->data, r->size));
        run_release(run, r);
    }
}

static void command_notes(const uint8_t *data, size_t size, size_t piece)
{
    static struct run *run;
    if (!run)
        run = run_new(&(struct run_config){.slots = 1});
    struct attempt attempt = {.id = 1, .lease = 1};
    struct pushrod_task task = {.run = run, .attempt = &attempt, .deadline_ns = UINT64_MAX};
    struct notes n;
    notes_begin(&n, &task);
    for (size_t at = 0; at < size; at += piece) {
        notes_take(&n, (const char *)data + at, size - at < piece ? size - at : piece);
        take_reports(run);
    }
    notes_end(&n);
    take_reports(run);
    FUZZ_CHECK(n.retry_ms <= UINT64_C(1000000000001));
    if (n.failed)
        FUZZ_CHECK(memchr(n.text, 0, sizeof n.text));
}

static void command_errors(const uint8_t *data, size_t size, size_t piece)
{
    struct said s;
    said_begin(&s, 1);
    for (size_t at = 0; at < size; at += piece)
        said_take(&s, data + at, size - at < piece ? size - at : piece);
    said_end(&s);
    struct slice tail = said_tail(&s, PUSHROD_MAX_ERROR_TEXT);
    FUZZ_CHECK(tail.size <= PUSHROD_MAX_ERROR_TEXT);
    check_text(tail);
}

static void handler_is_told(struct slice headers)
{
    struct attempt a = {.id = 1, .number = 1, .queue = slice_str("q"), .headers = headers};
    struct environment e;
    struct buf line = BUF_EMPTY;
    if (!headers_valid(headers))
        return;
    struct dec in = dec_of(headers);
    size_t pairs = dec_map(&in), ours = 0;
    FUZZ_CHECK(environment_make(&e, &a));
    for (size_t i = 0; e.variables[i]; i++) {
        FUZZ_CHECK(strchr(e.variables[i], '='));
        ours += strncmp(e.variables[i], "PUSHROD_HEADER_", 15) == 0;
    }
    FUZZ_CHECK(ours == pairs);
    environment_free(&e);
    FUZZ_CHECK(talk_request(&line, &a));
    json_t *object = json_loadb((const char *)line.data, line.size, 0, NULL);
    FUZZ_CHECK(json_is_object(json_object_get(object, "headers")));
    json_decref(object);
    buf_free(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_setup("fuzz", LOG_ERROR, false);
    if (size < 2)
        return 0;
    uint8_t *exact = malloc(size - 1);
    memcpy(exact, data + 1, size - 1);
    coproc_says(exact, size - 1);
    command_notes(exact, size - 1, 1u + data[0]);
    command_errors(exact, size - 1, 1u + data[0]);
    handler_is_told(slice_of(exact, size - 1));
    free(exact);
    return 0;
}

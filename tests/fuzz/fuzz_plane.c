/* SPDX-License-Identifier: Apache-2.0 */
/* What the plane makes of a frame from a stranger (join) and from a worker (answers). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/name.h"
#include "server/net/answer_parse.h"
#include "server/net/join_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Touches every byte, so that the sanitizer sees a slice that does not lie in the frame. */
static void touch(struct slice bytes)
{
    static volatile uint8_t sum;
    for (size_t i = 0; i < bytes.size; i++)
        sum = sum ^ bytes.data[i];
}

static void fuzz_join(struct slice frame)
{
    struct dec d = dec_of(frame);
    uint64_t version;
    struct slice nonce;
    struct join_request r;
    if (join_peek(&d, &version, &nonce))
        touch(nonce);
    if (dec_message(&d) != MSG_JOIN)
        return;
    if (join_request_read(&r, &d) != 0) {
        assert(strlen(r.text) > 0);
    } else {
        assert(name_valid(r.join.name) && r.join.slots >= 1 && r.join.queue_count >= 1);
        touch(r.join.host);
        for (size_t i = 0; i < r.join.queue_count; i++)
            assert(name_pattern_valid(r.join.queues[i]));
        for (size_t i = 0; i < r.join.held_count; i++)
            assert(r.join.held[i].id && r.join.held[i].lease);
    }
    join_parsed_free(&r);
}

static void fuzz_answers(struct slice frame)
{
    struct answer_frame f;
    struct answer answers[3]; /* fewer than a frame has, so that reading goes on where it stopped */
    if (!answer_frame_open(&f, frame))
        return;
    uint64_t next = f.from.sequence;
    while (dec_more(&f.dec)) {
        size_t count = answer_frame_read(&f, answers, 3);
        for (size_t i = 0; i < count; i++) {
            assert(answers[i].sequence == next++);
            touch(answers[i].data);
        }
    }
}

/*
 * The first byte says which. The bytes are copied, so that one read too far is seen.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t *copy = malloc(size);
    memcpy(copy, data + 1, size - 1);
    struct slice frame = slice_of(copy, size - 1);
    if (data[0] & 1)
        fuzz_join(frame);
    else
        fuzz_answers(frame);
    free(copy);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * answer_parse: a frame of the answers socket as an array of struct answer.
 *
 * Knows the form of the messages, not who may send them. Allocates nothing: slices borrow from
 * the frame.
 */
#ifndef SERVER_NET_ANSWER_PARSE_H
#define SERVER_NET_ANSWER_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include "proto/codec.h"
#include "server/core/core.h"

struct answer_frame {
    struct dec dec;
    struct msg_from from;
    uint64_t sequence; /* of the next message */
    bool beat;         /* there was one; it has no number and is no answer */
};

/* Reads FROM. False: it is not there, or says nothing sensible. */
bool answer_frame_open(struct answer_frame *f, struct slice frame);
/* Reads up to `most` messages, and gives how many of them are answers: HEARTBEATs only set `beat`.
 * Those before an error are good ones. */
size_t answer_frame_read(struct answer_frame *f, struct answer *answers, size_t most);
/* NULL: none; else what was wrong, a constant text. */
const char *answer_frame_error(const struct answer_frame *f);

#endif

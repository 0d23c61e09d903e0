/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stranger's bytes on a client connection of a whole server, in one piece and in several: it
 * says only whole frames, and comes to the same verdict either way.
 *
 * The first byte helps the fuzzer past what it would have to guess: a HELLO before, a frame
 * around the rest, a SUBMIT whose payload is larger than one read. The second one cuts.
 */
#include <string.h>
#include "tests/lib/native_play.h"

#define WITH_HELLO 0x80u
#define WITH_FRAME 0x40u
#define WITH_LARGE 0x20u
#define LARGE      (300u << 10)
#define LIFE       2000u /* inputs for one server: what they submit stays */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct native_play play;
static unsigned inputs;

static void put_hello(struct buf *out)
{
    size_t begin = frame_begin(out);
    msg_hello_encode(out, &(struct msg_hello){.version = PROTOCOL_VERSION});
    frame_end(out, begin);
}

/* A SUBMIT as far as its payload; what follows it is the fuzzer's. */
static void put_large(struct buf *out)
{
    enc_array(out, 6);
    enc_u64(out, MSG_SUBMIT);
    enc_u64(out, 1);
    enc_text(out, slice_str("fuzz"));
    static const uint8_t zeros[LARGE];
    enc_bytes(out, slice_of(zeros, sizeof zeros));
}

static void put_input(struct buf *out, unsigned flags, struct slice rest)
{
    if (flags & WITH_HELLO)
        put_hello(out);
    size_t begin = flags & (WITH_FRAME | WITH_LARGE) ? frame_begin(out) : 0;
    if (flags & WITH_LARGE)
        put_large(out);
    buf_append(out, rest.data, rest.size);
    if (flags & (WITH_FRAME | WITH_LARGE))
        frame_end(out, begin);
}

/* The verdict; `piece` 0: all at once. Of a large input every piece is 64 times as long. */
static unsigned hear_verdict(struct slice input, size_t piece)
{
    struct native_peer peer;
    native_peer_open(&play, &peer);
    size_t most = piece == 0 ? input.size : input.size > LARGE ? piece * 1024 : piece;
    for (size_t at = 0; at < input.size && !peer.closed; at += most)
        native_peer_say(
            &play, &peer, input.data + at, input.size - at < most ? input.size - at : most);
    native_peer_settle(&play, &peer, input.size);
    struct native_heard heard = native_peer_heard(&peer);
    NATIVE_MUST(heard.counts[MSG_ERROR] <= 1);
    native_peer_close(&play, &peer);
    return heard.error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    if (inputs++ % LIFE == 0) {
        if (play.server)
            native_play_stop(&play);
        native_play_start(&play);
    }
    struct buf input = BUF_EMPTY;
    put_input(&input, data[0], slice_of(data + 2, size - 2));
    unsigned whole = hear_verdict(buf_slice(&input), 0);
    unsigned pieces = hear_verdict(buf_slice(&input), 1u + data[1]);
    NATIVE_MUST(whole == pieces);
    buf_free(&input);
    return 0;
}

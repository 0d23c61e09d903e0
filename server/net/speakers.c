/* SPDX-License-Identifier: Apache-2.0 */
#include "server/net/speakers.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/net/plane_internal.h"

/* Sessions that are over, and whose late answers are in order yet. */
#define SPEAKERS_RETIRED 1024u

void speaker_drop(struct plane *plane, struct speaker *speaker)
{
    strmap_remove(&plane->speakers, slice_str(speaker->user));
    if (!list_empty(&speaker->node)) {
        list_remove(&speaker->node);
        plane->retired_count--;
    }
    free(speaker);
}

struct speaker *speaker_add(struct plane *plane, uint64_t worker, uint64_t session)
{
    struct speaker *speaker = calloc(1, sizeof *speaker);
    if (!speaker)
        return NULL;
    snprintf(speaker->user, sizeof speaker->user, "%" PRIu64 "-%" PRIu64, worker, session);
    speaker->worker = worker;
    speaker->session = session;
    list_init(&speaker->node);
    assert(!strmap_get(&plane->speakers, slice_str(speaker->user)));
    if (strmap_put(&plane->speakers, slice_str(speaker->user), speaker))
        return speaker;
    free(speaker);
    return NULL;
}

void speakers_trim(struct plane *plane)
{
    while (!plane->reading && plane->retired_count > SPEAKERS_RETIRED)
        speaker_drop(plane, container_of(list_first(&plane->retired), struct speaker, node));
}

void speaker_retire(struct plane *plane, struct speaker *speaker)
{
    zap_forget(plane->zap, speaker->user);
    speaker->lane = NULL;
    list_push_back(&plane->retired, &speaker->node);
    plane->retired_count++;
    speakers_trim(plane);
}

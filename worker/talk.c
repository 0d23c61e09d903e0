/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/talk.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"

/* Headers are UTF-8 by contract, not by check; what JSON cannot say is left out. */
static json_t *headers_object(struct slice headers)
{
    json_t *object = json_object();
    struct dec in = dec_of(headers);
    uint32_t pairs = headers.data ? dec_map(&in) : 0;
    for (uint32_t i = 0; i < pairs; i++) {
        struct slice name = dec_text(&in);
        struct slice value = dec_text(&in);
        if (dec_failed(&in))
            break;
        char key[65];
        snprintf(key, sizeof key, "%.*s", (int)name.size, (const char *)name.data);
        json_object_set_new(object, key, json_stringn((const char *)value.data, value.size));
    }
    return object;
}

bool talk_request(struct buf *out, const struct attempt *a)
{
    char id[24];
    snprintf(id, sizeof id, "%llu", (unsigned long long)a->id);
    json_t *line = json_pack("{s:s, s:s%, s:I, s:o, s:I}", "id", id, "queue",
        (const char *)a->queue.data, a->queue.size, "attempt", (json_int_t)a->number, "headers",
        headers_object(a->headers), "size", (json_int_t)a->payload.size);
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (!text)
        return false;
    buf_append(out, text, strlen(text));
    free(text);
    buf_append(out, "\n", 1);
    buf_append(out, a->payload.data, a->payload.size);
    return !out->failed;
}

/* A whole number of 0 or more; absent: 0. False: something else stands there. */
static bool number_of(const json_t *object, const char *name, uint64_t *value)
{
    const json_t *found = json_object_get(object, name);
    *value = 0;
    if (!found || json_is_null(found))
        return true;
    if (!json_is_integer(found) || json_integer_value(found) < 0)
        return false;
    *value = (uint64_t)json_integer_value(found);
    return true;
}

static bool type_of(const json_t *object, enum talk_type *type)
{
    static const char *const names[] = {[TALK_PROGRESS] = "progress",
        [TALK_DATA] = "data",
        [TALK_DONE] = "done",
        [TALK_FAIL] = "fail",
        [TALK_RETRY] = "retry"};
    const char *name = json_string_value(json_object_get(object, "type"));
    for (unsigned i = 0; name && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *type = (enum talk_type)i;
            return true;
        }
    }
    return false;
}

static bool read_object(const json_t *object, struct talk_message *m)
{
    uint64_t size;
    if (!type_of(object, &m->type) || !number_of(object, "size", &size) ||
        !number_of(object, "done", &m->done) || !number_of(object, "total", &m->total))
        return false;
    m->size = m->type == TALK_PROGRESS ? 0 : size;
    double after = json_number_value(json_object_get(object, "after"));
    m->after_ms = after > 0 && after < 1e9 ? (uint64_t)(after * 1000) : 0;
    const char *id = json_string_value(json_object_get(object, "id"));
    m->id = id ? strtoull(id, NULL, 10) : 0;
    const char *text = json_string_value(json_object_get(object, "text"));
    snprintf(m->text, sizeof m->text, "%s", text ? text : "");
    return true;
}

int talk_parse(struct slice bytes, struct talk_message *m)
{
    const uint8_t *end = bytes.size ? memchr(bytes.data, '\n', bytes.size) : NULL;
    if (!end)
        return bytes.size > TALK_LINE ? -1 : 0;
    m->head = (size_t)(end - bytes.data) + 1;
    json_t *object = json_loadb((const char *)bytes.data, m->head, 0, NULL);
    bool good = json_is_object(object) && read_object(object, m);
    json_decref(object);
    return good ? 1 : -1;
}

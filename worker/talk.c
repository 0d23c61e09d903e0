/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/talk.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
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

/* Seconds; absent: 0. */
static bool seconds_of(const json_t *object, const char *name, uint64_t *ms)
{
    const json_t *found = json_object_get(object, name);
    double seconds = json_number_value(found);
    *ms = 0;
    if (!found || json_is_null(found))
        return true;
    if (!json_is_number(found) || !(seconds >= 0 && seconds < 1e9))
        return false;
    *ms = (uint64_t)(seconds * 1000);
    return true;
}

/* Cut if it is too long. A NUL, which JSON can say, would end it. */
static bool text_of(const json_t *object, const char *name, char *text, size_t size)
{
    const json_t *found = json_object_get(object, name);
    size_t length = json_is_string(found) ? json_string_length(found) : 0;
    length = length < size ? length : size - 1;
    if (length)
        memcpy(text, json_string_value(found), length);
    text[length] = '\0';
    utf8_repair(text, length);
    return !found || json_is_null(found) || json_is_string(found);
}

/* As it was told, in a string, since not all languages have integers of 63 bits. */
static bool id_of(const json_t *object, uint64_t *id)
{
    const json_t *found = json_object_get(object, "id");
    if (!json_is_string(found))
        return number_of(object, "id", id);
    *id = strtoull(json_string_value(found), NULL, 10);
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

/* What is wrong with it, as talk_message.wrong; NULL: nothing. A field that is none of ours is for
 * later versions; one of ours that is of another type would look as if it worked, were it passed
 * over. */
static const char *read_object(const json_t *object, struct talk_message *m)
{
    uint64_t size;
    if (!json_is_object(object))
        return "";
    if (!type_of(object, &m->type))
        return "\"type\" is none of progress, data, done, fail, retry";
    if (!number_of(object, "size", &size))
        return "\"size\" is no whole number";
    if (!number_of(object, "done", &m->done))
        return "\"done\" is no whole number";
    if (!number_of(object, "total", &m->total))
        return "\"total\" is no whole number";
    if (!seconds_of(object, "after", &m->after_ms))
        return "\"after\" is no number of seconds";
    if (!text_of(object, "text", m->text, sizeof m->text))
        return "\"text\" is no string";
    if (!id_of(object, &m->id))
        return "\"id\" is none";
    m->size = m->type == TALK_PROGRESS ? 0 : size;
    return NULL;
}

int talk_parse(struct slice bytes, struct talk_message *m)
{
    const uint8_t *end = bytes.size ? memchr(bytes.data, '\n', bytes.size) : NULL;
    m->wrong = "a line is too long"; /* or not at its end yet */
    if (!end)
        return bytes.size > TALK_LINE ? -1 : 0;
    m->head = (size_t)(end - bytes.data) + 1;
    json_t *object = json_loadb((const char *)bytes.data, m->head, JSON_ALLOW_NUL, NULL);
    m->wrong = read_object(object, m);
    json_decref(object);
    return m->wrong ? -1 : 1;
}

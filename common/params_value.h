/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of params: one option's value, shared by params.c (the table), params_value.c (types),
 * params_read.c (sources) and params_print.c. Nobody else includes this.
 */
#ifndef COMMON_PARAMS_VALUE_H
#define COMMON_PARAMS_VALUE_H

#include "common/params.h"

struct value {
    enum param_source source;
    char *where;     /* "/etc/pushrod.conf:3", "PUSHROD_JOIN"; NULL: the source says it all */
    char *text;      /* as written; NULL: unset */
    char *file;      /* of a secret, where the text was read; NULL: it was not */
    uint64_t number; /* of all types that have one; PORTS: first << 16 | last */
    char **items;    /* LIST and HOST_PORTS */
    size_t count;
};

struct params {
    const struct param *rows;
    struct value *values; /* one for each row */
    size_t count;
    unsigned scope;
    char error[512];
};

#define PARAM_VARIABLE_SIZE 64u

/* "the environment" */
extern const char *const param_sources[];
bool param_is_list(const struct param *row);
bool param_in_scope(const struct params *p, const struct param *row);
/* The row of that name ('-' and '_' are the same), in scope or not; NULL: none. */
const struct param *params_find(const struct params *p, const char *name, size_t size);
struct value *params_value(const struct params *p, const struct param *row);
/* The environment's name of a row; "" if it has none. */
void param_variable(const struct param *row, char name[PARAM_VARIABLE_SIZE]);
/* False: the text is no value of this row. */
bool param_parse(const struct param *row, const char *text, uint64_t *number);
/* What a row's values look like, for errors and help: "a size from 1k to 16m". */
void param_describe(const struct param *row, struct buf *out);

/* Checks and stores; nothing happens if a higher source has set it. `where` is copied. */
int params_store(struct params *p, const struct param *row, const char *text,
    enum param_source source, const char *where);
int params_fail(struct params *p, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Fails with "no option NAME; did you mean ...?". */
int params_fail_unknown(struct params *p, const char *prefix, const char *name, size_t size);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * params: values of options, from flags, environment, a file, or the defaults, in this order.
 *
 * It knows rows (struct param) and how values are read, checked, told and printed. What options
 * there are stands in common/options.c; what they mean is known only to who asks for them.
 * Values of a lower source never replace those of a higher one, so the order of reading is free:
 * flags first, for they may name the file.
 *
 * Functions that can fail return 0 or a negative enum pushrod_error; params_error() says which
 * option, which value, from where, and what is allowed. One thread.
 */
#ifndef COMMON_PARAMS_H
#define COMMON_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"

enum param_type {
    PARAM_TITLE,    /* no option: a heading in help and sample; `name` is its text */
    PARAM_BOOL,     /* yes, no (true, false, on, off, 1, 0); as a flag --name or --no-name */
    PARAM_UNSIGNED, /* min..max */
    PARAM_SIZE,     /* bytes, with k, m or g (1024); min..max */
    PARAM_DURATION, /* ms; written 250ms, 3s, 5m, 1h, 2d; min..max */
    PARAM_STRING,
    PARAM_PORT,       /* 0..65535; 0: any free one */
    PARAM_PORTS,      /* "22500-22600" */
    PARAM_HOST_PORT,  /* host[:port]; [::1]:5571 for IPv6 */
    PARAM_HOST_PORTS, /* several of them, separated by commas */
    PARAM_ENUM,       /* one of `allowed` */
    PARAM_LIST        /* strings; repeated flags or lines add up; one a line in the environment */
};

/* Where an option is known. In the others it is ignored in the environment and the file. */
enum param_scope { SCOPE_SERVER = 1, SCOPE_WORKER = 2, SCOPE_CLIENT = 4, SCOPE_ALL = 7 };

enum param_flags {
    PARAM_RELOADABLE = 1, /* taken over on reload */
    PARAM_SECRET = 2,     /* not printed; --NAME-file and PUSHROD_NAME_FILE name a file with it */
    PARAM_ACTION = 4      /* only a flag: not in the environment, the file, or what is printed */
};

struct param {
    const char *name; /* "max-tasks"; max_tasks is the same */
    enum param_type type;
    unsigned scope;
    const char *initial; /* as a user would write it; NULL: unset (0, no, "", none) */
    const char *help;    /* one line, without a full stop */
    uint64_t min;
    uint64_t max;           /* 0: no bound */
    const char *allowed;    /* PARAM_ENUM: "text|json" */
    const char *value_name; /* in help: "FILE"; NULL: of the type */
    const char *variable;   /* NULL: PUSHROD_NAME; "": none; else its name */
    char letter;            /* -q; 0: none */
    unsigned flags;
};

enum param_source { FROM_DEFAULT, FROM_FILE, FROM_ENVIRONMENT, FROM_FLAG, FROM_CALL };

struct params;

/* The rows are borrowed for ever. NULL: no memory. Asserts that the table is well-formed. */
struct params *params_new(const struct param *rows, size_t count, unsigned scope);
void params_free(struct params *p);

/* Text of the last failure, one line; "" if there was none. Valid until the next call. */
const char *params_error(const struct params *p);

/* ---- reading ---- */

/* A value from a program (`set`). A list gets one more; value NULL empties it. */
int params_set(struct params *p, const char *name, const char *value);

/*
 * Reads argv[1..]; operands (and all that follows "--") are moved to argv[1..*operands]. Values are
 * copied. operands NULL: there may be none. With `stop` reading ends at the first operand, which
 * and all after it are left: for commands with commands.
 */
int params_read_flags(struct params *p, int argc, char **argv, int *operands, bool stop);

/* `unknown` is called for each PUSHROD_ variable that means nothing here; it may be NULL. */
int params_read_environment(struct params *p, char *const *environment,
    void (*unknown)(void *arg, const char *text), void *arg);
int params_read_file(struct params *p, const char *path);

/* A file that values in use came from and that cannot be read again, a pipe; NULL: there is none.
 */
const char *params_read_once(const struct params *p);

/*
 * Reads the files of secrets again that are in use, as far as they are regular files: a pipe can be
 * read once. How many changed; or a negative error, with which the old secret stays.
 */
int params_renew_secrets(struct params *p);

/*
 * Takes over the reloadable values of `fresh` (read anew from the same sources). `report` gets a
 * line for each value that changed, and for each one that needs a restart. Gives how many changed.
 */
unsigned params_reload(struct params *p, const struct params *fresh, struct buf *report);

/* ---- asking; the name must be of the table, the type of the row ---- */
bool params_bool(const struct params *p, const char *name);
uint64_t params_number(const struct params *p, const char *name);  /* bytes, ms, port, count */
const char *params_text(const struct params *p, const char *name); /* "": unset; until set again */
const char *const *params_list(const struct params *p, const char *name, size_t *count);
void params_ports(const struct params *p, const char *name, uint16_t *first, uint16_t *last);
bool params_given(const struct params *p, const char *name); /* not the default */

/* How many letters must be added, dropped or changed to make one name the other (Levenshtein). */
size_t params_name_distance(const char *a, const char *b, size_t size);

/* "host:port", or "[::1]:port", as others have to write it. */
void params_join_host(char *text, size_t size, const char *host, unsigned port);
/* Splits "host:port", "[::1]:port", "host" (port stays as it is). False: neither, as "5570" is. */
bool params_split_host(const char *text, char *host, size_t size, uint16_t *port);

/*
 * The one line that a file holds, as secrets are kept: from where other users cannot read it, as
 * they can the command line. SYSTEM: it cannot be read; BAD_OPTION: it is none such. `why` says
 * which.
 */
#define PARAMS_SECRET 4096u
int params_read_secret(const char *path, char text[PARAMS_SECRET], const char **why);

/* ---- printing ---- */
void params_print_help(const struct params *p, struct buf *out);
void params_print_values(
    const struct params *p, struct buf *out); /* a file that can be read again */
void params_print_sample(const struct params *p, struct buf *out); /* all defaults, commented out */
void params_print_man(const struct params *p, struct buf *out);    /* roff: .TP for each option */
/* Lines of an option, a tab and its help. */
void params_print_completion(const struct params *p, struct buf *out);

#endif

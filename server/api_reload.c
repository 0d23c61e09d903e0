/* SPDX-License-Identifier: Apache-2.0 */
/* api_reload: options that change while the server runs; what cannot change is named in the log. */
#include <stdlib.h>
#include <string.h>
#include "common/log.h"
#include "server/api.h"

/* For those who come from now on; who is connected stays. */
static void reload_token(struct pushrod_server *s)
{
    const char *token = params_text(s->params, "token");
    if (strcmp(token, s->token) == 0)
        return;
    char *copy = strdup(token);
    if (!copy || !host_set_token(s->host, token)) {
        free(copy);
        log_error("reload: the token stays as it was: out of memory");
        return;
    }
    native_set_token(s->native, copy);
    free(s->token);
    s->token = copy;
}

static void report_log(struct buf *report)
{
    buf_append(report, "", 1);
    for (char *line = (char *)report->data, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        else
            next = line + strlen(line);
        if (strstr(line, "restart"))
            log_warning("reload: %s", line);
        else
            log_info("reload: %s", line);
    }
}

void reload_apply(struct pushrod_server *s, const struct params *fresh)
{
    struct buf report = BUF_EMPTY;
    unsigned changed = params_reload(s->params, fresh, &report);
    settings_log(s);
    report_log(&report);
    buf_free(&report);
    core_configure(host_core(s->host), params_number(s->params, "max-tasks"),
        params_number(s->params, "max-bytes"), settings_drain_ms(s));
    reload_token(s);
    local_reload(s);
    log_info("reload: options changed: %u", changed);
}

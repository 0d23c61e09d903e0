/* SPDX-License-Identifier: Apache-2.0 */
/* err: the texts of include/pushrod/error.h, and the names of the finishes of task.h. */
#include <pushrod/error.h>
#include <pushrod/task.h>

/* As unsigned, so that the one number that has no positive twin needs no case of its own. */
static unsigned error_number(int error)
{
    return error < 0 ? 0u - (unsigned)error : (unsigned)error;
}

const char *pushrod_strerror(int error)
{
    switch (error_number(error)) {
#define X(name, number, text)                                                                      \
    case number:                                                                                   \
        return text;
        PUSHROD_ERRORS(X)
#undef X
    default:
        return "unknown error";
    }
}

const char *pushrod_error_name(int error)
{
    switch (error_number(error)) {
#define X(name, number, text)                                                                      \
    case number:                                                                                   \
        return #name;
        PUSHROD_ERRORS(X)
#undef X
    default:
        return "UNKNOWN";
    }
}

const char *pushrod_status_name(int status)
{
    switch (status) {
    case PUSHROD_DONE:
        return "done";
    case PUSHROD_FAILED:
        return "failed";
    case PUSHROD_CANCELLED:
        return "cancelled";
    case PUSHROD_EXPIRED:
        return "expired";
    case PUSHROD_REFUSED:
        return "refused";
    default:
        return "unknown";
    }
}

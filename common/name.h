/* SPDX-License-Identifier: Apache-2.0 */
/*
 * name: what a queue name is, and which pattern matches it.
 *
 * A name is [A-Za-z0-9._:/+-]{1,128}. A pattern is a name, or a name's beginning followed by one
 * '*' at the end ("mail.*", "*"). The most specific pattern wins: an exact name before any
 * pattern, then the longer one.
 */
#ifndef COMMON_NAME_H
#define COMMON_NAME_H

#include <stdbool.h>
#include "common/slice.h"

bool name_valid(struct slice name);
bool name_pattern_valid(struct slice pattern);
bool name_matches(struct slice pattern, struct slice name);
/* How specific a pattern is; greater wins; an exact name beats every pattern. */
unsigned name_specificity(struct slice pattern);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* utf8: what is text, and what is not. */
#ifndef COMMON_UTF8_H
#define COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at `at`, of which `left` > 0 are there; 0: it is none. */
size_t utf8_size(const uint8_t *at, size_t left);

/* A control character, which a terminal obeys: C0, DEL, and C1, which it obeys in UTF-8 too.
 * `size`: as utf8_size() gave it. */
bool utf8_control(const uint8_t *at, size_t size);

/* Puts a '?' for each byte that is no part of a character, and for NUL. */
void utf8_repair(void *text, size_t size);

#endif

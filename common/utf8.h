/* SPDX-License-Identifier: Apache-2.0 */
/* utf8: what is text, and what is not. */
#ifndef COMMON_UTF8_H
#define COMMON_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at `at`, of which `left` > 0 are there; 0: it is none. */
size_t utf8_size(const uint8_t *at, size_t left);

/* Puts a '?' for each byte that is no part of a character, and for NUL. */
void utf8_repair(void *text, size_t size);

#endif

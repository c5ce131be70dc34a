/* name.h - keys and tensor names as bytes: validity, order, and how a message shows one.
 * Inline, so that the parser, the lookups and the fuzz target need no further object. */
#ifndef LLD_GGUF_NAME_H
#define LLD_GGUF_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LLD_NAME_TEXT = 84 }; /* bytes of a name in a message, its terminator included */

/* Length of the UTF-8 sequence at s, 1..4; 0 when it is invalid or NUL (RFC 3629, section 4). */
static inline size_t lld_utf8_length(const uint8_t *s, size_t n)
{
    if (s[0] != 0 && s[0] < 0x80) return 1;
    size_t length = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xED && s[1] > 0x9F;
    bool beyond = s[0] == 0xF4 && s[1] > 0x8F;
    return overlong || surrogate || beyond ? 0 : length;
}

/* Whether s: (n) is UTF-8 without NUL. */
static inline bool lld_name_valid(const uint8_t *s, size_t n)
{
    for (size_t i = 0, step; i < n; i += step)
        if ((step = lld_utf8_length(s + i, n - i)) == 0) return false;
    return true;
}

static inline int lld_name_compare(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

/* Copy a valid name for a message; a long one is cut between characters and ends in "...".
 * lld_fail replaces the control characters. */
static inline void lld_name_text(const char *name, size_t length, char text[LLD_NAME_TEXT])
{
    enum { ROOM = LLD_NAME_TEXT - 4 };
    size_t n = length <= ROOM ? length : ROOM;
    while (n < length && n > 0 && ((uint8_t)name[n] & 0xC0) == 0x80) n--;
    memcpy(text, name, n);
    memcpy(text + n, n < length ? "..." : "", n < length ? 4 : 1);
}

#endif

/* status.c - the thread-local failure message behind lld_status, and the version of the build.
 * Does not decide what a failure is: the code that finds a fault calls lld_fail. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 512 };

static _Thread_local char message[MESSAGE_BYTES] = "no error";

/* The length of text without a UTF-8 character that vsnprintf cut in two. */
static size_t whole_characters(const char *text, size_t length)
{
    size_t start = length;
    while (start > 0 && length - start < 4 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0) return length;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    return length - start + 1 < wanted ? start - 1 : length;
}

int lld_fail(int status, const char *format, ...)
{
    char text[MESSAGE_BYTES]; /* the arguments may point into the old message */
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = wanted < 0 ? 0 : strlen(text);
    if (wanted >= (int)sizeof text) length = whole_characters(text, length);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        message[i] = c < 0x20 || c == 0x7F ? '?' : text[i];
    }
    message[length] = '\0';
    return status;
}

const char *lld_error_message(void) { return message; }

const char *lld_version(void) { return LLD_BUILD; }

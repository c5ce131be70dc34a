/* test_gguf.c - the parser on good bytes, on every kind of bad ones, and on every prefix.
 * Bytes are parsed from a heap copy of exactly their size, so the sanitizers see a read beyond. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "gguf/gguf.h"
#include "gguf_builder.h"
#include "format/format.h"

static const uint64_t dims_32[4] = {32, 1, 1, 1};

static int parse_copy(const uint8_t *bytes, size_t n, uint8_t **copy, lld_gguf *out)
{
    *copy = malloc(n > 0 ? n : 1);
    memcpy(*copy, bytes, n);
    return lld_gguf_parse(*copy, n, out);
}

static void check_refused(const builder *b, int status, const char *message)
{
    uint8_t *copy = NULL;
    lld_gguf gguf;
    int got = parse_copy(b->bytes, b->n, &copy, &gguf);
    CHECK(got == status, "status %d, expected %d for '%s'", got, status, message);
    CHECK(got != LLD_OK && strcmp(lld_error_message(), message) == 0, "message '%s', expected '%s'",
          lld_error_message(), message);
    CHECK(gguf.kv == NULL && gguf.tensors == NULL, "a refused file owns memory");
    lld_gguf_free(&gguf);
    free(copy);
}

static void check_accepted(const builder *b, const char *name)
{
    uint8_t *copy = NULL;
    lld_gguf gguf;
    int status = parse_copy(b->bytes, b->n, &copy, &gguf);
    CHECK(status == LLD_OK, "%s: %s", name, lld_error_message());
    lld_gguf_free(&gguf);
    free(copy);
}

/* A file with one entry of each kind and three tensors. */
static void put_good(builder *b, uint32_t version)
{
    const uint64_t matrix[2] = {64, 3};
    put_header(b, version, 3, 9);
    put_key(b, "general.architecture", LLD_GGUF_STRING), put_string(b, "llama");
    put_key(b, "general.alignment", LLD_GGUF_UINT32), put_u32(b, 64);
    put_key(b, "a.small", LLD_GGUF_INT8), put(b, "\xFE", 1);
    put_key(b, "a.float", LLD_GGUF_FLOAT32), put_u32(b, 0x3FC00000);
    put_key(b, "a.double", LLD_GGUF_FLOAT64), put_u64(b, 0xC004000000000000);
    put_key(b, "a.flag", LLD_GGUF_BOOL), put(b, "\1", 1);
    put_key(b, "a.large", LLD_GGUF_UINT64), put_u64(b, UINT64_C(1) << 40);
    put_array(b, "a.words", LLD_GGUF_STRING, 2), put_string(b, "one"), put_string(b, "");
    put_array(b, "a.numbers", LLD_GGUF_UINT16, 3), put(b, "\1\0\2\0\3\0", 6);
    put_tensor(b, "second", 1, dims_32, LLD_F32, 128); /* not in the order of the data */
    put_tensor(b, "first", 2, matrix, LLD_Q4_0, 0);
    put_tensor(b, "third", 1, dims_32, LLD_F16, 256);
    put_padding(b, 64);
    put_data(b, 256 + 64);
}

static void check_values(const lld_gguf *g)
{
    uint32_t u = 7;
    float f = 0;
    bool flag = false, found = false;
    const char *text = NULL;
    size_t length = 0;
    CHECK(lld_gguf_read_string(g, "general.architecture", &text, &length, &found) == LLD_OK &&
              found && length == 5 && memcmp(text, "llama", 5) == 0,
          "string");
    CHECK(lld_gguf_read_f32(g, "a.float", &f, &found) == LLD_OK && f == 1.5f, "%g", (double)f);
    CHECK(lld_gguf_read_f32(g, "a.double", &f, NULL) == LLD_OK && f == -2.5f, "%g", (double)f);
    CHECK(lld_gguf_read_bool(g, "a.flag", &flag, NULL) == LLD_OK && flag, "bool");
    CHECK(lld_gguf_read_u32(g, "general.alignment", &u, NULL) == LLD_OK && u == 64, "%u", u);
    CHECK(lld_gguf_read_u32(g, "absent", &u, &found) == LLD_OK && u == 64 && !found, "absent");
    CHECK(lld_gguf_read_u32(g, "a.small", &u, NULL) == LLD_ERR_CORRUPT, "negative");
    CHECK(strcmp(lld_error_message(), "key 'a.small': -2, must be 0..4294967295") == 0, "%s",
          lld_error_message());
    CHECK(lld_gguf_read_u32(g, "a.large", &u, NULL) == LLD_ERR_CORRUPT && u == 64, "too large");
    CHECK(lld_gguf_read_u32(g, "a.float", &u, NULL) == LLD_ERR_CORRUPT, "float as integer");
    CHECK(strcmp(lld_error_message(), "key 'a.float': type float32, must be an integer") == 0, "%s",
          lld_error_message());
    CHECK(lld_gguf_read_f32(g, "a.large", &f, NULL) == LLD_ERR_CORRUPT, "integer as float");
    CHECK(lld_gguf_read_bool(g, "a.words", &flag, NULL) == LLD_ERR_CORRUPT, "array as bool");
    CHECK(lld_gguf_read_string(g, "a.words", &text, &length, NULL) == LLD_ERR_CORRUPT, "array");
    const lld_kv *words = lld_gguf_find(g, "a.words"), *numbers = lld_gguf_find(g, "a.numbers");
    CHECK(words && words->count == 2 && words->data_bytes == 19, "array of strings");
    CHECK(numbers && numbers->count == 3 && numbers->data_bytes == 6 && numbers->data[4] == 3,
          "array of numbers");
}

static void check_tensors(const lld_gguf *g)
{
    const lld_tensor *t = lld_gguf_find_tensor(g, "first");
    CHECK(t == &g->tensors[1] && t->n_dims == 2 && t->dims[0] == 64 && t->dims[1] == 3 &&
              t->dims[2] == 1 && t->dims[3] == 1 && t->bytes == 3 * 36,
          "first");
    CHECK(t->file_offset % 64 == 0 && t->data == g->bytes + t->file_offset && t->data[0] == 1,
          "data of first");
    const lld_tensor *second = lld_gguf_find_tensor(g, "second");
    CHECK(second && second->file_offset == t->file_offset + 128 && second->data[0] == 129,
          "second");
    const lld_tensor *third = lld_gguf_find_tensor(g, "third");
    CHECK(third && third->bytes == 64, "third");
    CHECK(!lld_gguf_find_tensor(g, "fourth") && !lld_gguf_find_tensor(g, "") &&
              !lld_gguf_find(g, "zzz"),
          "absent");
}

static void test_a_good_file_is_read(void)
{
    for (uint32_t version = 2; version <= 3; version++) {
        builder b = {.n = 0};
        put_good(&b, version);
        uint8_t *copy = NULL;
        lld_gguf gguf;
        CHECK(parse_copy(b.bytes, b.n, &copy, &gguf) == LLD_OK, "%s", lld_error_message());
        CHECK(gguf.version == version && gguf.n_kv == 9 && gguf.n_tensors == 3, "counts");
        if (gguf.n_tensors == 3) {
            check_values(&gguf);
            check_tensors(&gguf);
        }
        lld_gguf_free(&gguf);
        free(copy);
    }
}

static void test_every_prefix_is_refused(void)
{
    builder b = {.n = 0};
    put_good(&b, 3);
    for (size_t n = 0; n < b.n; n++) {
        uint8_t *copy = NULL;
        lld_gguf gguf;
        CHECK(parse_copy(b.bytes, n, &copy, &gguf) == LLD_ERR_CORRUPT, "prefix of %zu bytes", n);
        lld_gguf_free(&gguf);
        free(copy);
    }
}

static void test_every_flipped_byte_is_survived(void)
{
    builder b = {.n = 0};
    put_good(&b, 3);
    for (size_t i = 0; i < b.n; i++)
        for (int pattern = 0; pattern < 4; pattern++) {
            const uint8_t patterns[4] = {0x00, 0xFF, 0x80, (uint8_t)(b.bytes[i] + 1)};
            builder bad = b;
            bad.bytes[i] = patterns[pattern];
            uint8_t *copy = NULL;
            lld_gguf gguf;
            int status = parse_copy(bad.bytes, bad.n, &copy, &gguf);
            CHECK(status == LLD_OK || status == LLD_ERR_CORRUPT || status == LLD_ERR_UNSUPPORTED,
                  "byte %zu: status %d", i, status);
            lld_gguf_free(&gguf);
            free(copy);
        }
}

static void test_a_file_without_tensors_is_read(void)
{
    builder b = {.n = 0};
    put_header(&b, 3, 0, 1);
    put_array(&b, "tokenizer.ggml.tokens", LLD_GGUF_STRING, 0);
    check_accepted(&b, "no tensors, empty array");
    builder nothing = {.n = 0};
    put_header(&nothing, 3, 0, 0);
    check_accepted(&nothing, "nothing at all");
}

static void check_header_refused(const void *magic, uint32_t version, uint64_t n_tensors,
                                 uint64_t n_kv, int status, const char *message)
{
    builder b = {.n = 0};
    put_header(&b, version, n_tensors, n_kv);
    memcpy(b.bytes, magic, 4);
    check_refused(&b, status, message);
}

static void test_bad_headers_are_refused(void)
{
    check_header_refused("ggml", 3, 0, 0, LLD_ERR_CORRUPT,
                         "not a GGUF file: starts with bytes 67 67 6d 6c");
    check_header_refused("GGUF", 0, 0, 0, LLD_ERR_CORRUPT, "GGUF version is 0, must be 2 or 3");
    check_header_refused("GGUF", 1, 0, 0, LLD_ERR_UNSUPPORTED,
                         "GGUF version 1 is obsolete, must be 2 or 3");
    check_header_refused("GGUF", 4, 0, 0, LLD_ERR_UNSUPPORTED, "GGUF version 4 is newer than 3");
    check_header_refused("GGUF", 0x03000000, 0, 0, LLD_ERR_UNSUPPORTED,
                         "GGUF version is 0x03000000: a big-endian file, must be little-endian");
    check_header_refused("GGUF", 3, 0, 65537, LLD_ERR_CORRUPT,
                         "header: 65537 metadata entries, limit is 65536");
    check_header_refused("GGUF", 3, 0, UINT64_C(1) << 63, LLD_ERR_CORRUPT,
                         "header: 9223372036854775808 metadata entries, limit is 65536");
    check_header_refused("GGUF", 3, UINT32_MAX, 0, LLD_ERR_CORRUPT,
                         "header: 4294967295 tensors, limit is 65536");
    check_header_refused("GGUF", 3, 0, 65536, LLD_ERR_CORRUPT,
                         "header: 65536 metadata entries do not fit a file of 24 bytes");
    check_header_refused("GGUF", 3, 1, 0, LLD_ERR_CORRUPT,
                         "header: 1 tensors do not fit a file of 24 bytes");
    builder tiny = {.bytes = "GGU", .n = 3};
    check_refused(&tiny, LLD_ERR_CORRUPT, "header: magic of 4 bytes at byte 0, file has 3 bytes");
}

static builder one_entry(void)
{
    builder b = {.n = 0};
    put_header(&b, 3, 0, 1);
    return b;
}

static void test_bad_keys_are_refused(void)
{
    static const uint8_t zeros[64];
    builder b = one_entry();
    put_u64(&b, 0), put(&b, zeros, 64);
    check_refused(&b, LLD_ERR_CORRUPT, "metadata entry 0: name of 0 bytes, must be 1..65535");
    b = one_entry(), put_u64(&b, UINT64_MAX), put(&b, zeros, 64);
    check_refused(&b, LLD_ERR_CORRUPT,
                  "metadata entry 0: name of 18446744073709551615 bytes, must be 1..65535");
    b = one_entry(), put_u64(&b, 65535), put(&b, zeros, 64);
    check_refused(&b, LLD_ERR_CORRUPT,
                  "metadata entry 0: name of 65535 bytes at byte 32, file has 96 bytes");
    const char *bad[] = {"\xFFkey", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "cut\xE2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        b = one_entry(), put_key(&b, bad[i], LLD_GGUF_BOOL), put(&b, zeros, 16);
        check_refused(&b, LLD_ERR_CORRUPT, "metadata entry 0: name is not UTF-8 without NUL");
    }
    b = one_entry(), put_u64(&b, 3), put(&b, "a\0b", 3), put(&b, zeros, 16);
    check_refused(&b, LLD_ERR_CORRUPT, "metadata entry 0: name is not UTF-8 without NUL");
    b.n = 0, put_header(&b, 3, 0, 2);
    for (int i = 0; i < 2; i++) put_key(&b, "same.key", LLD_GGUF_BOOL), put(&b, zeros, 1);
    check_refused(&b, LLD_ERR_CORRUPT, "key 'same.key': occurs twice");
    b = one_entry(), put_key(&b, "new\nline", 99), put(&b, zeros, 16);
    check_refused(&b, LLD_ERR_CORRUPT, "key 'new?line': type 99 is unknown, must be 0..12");
}

static void test_bad_values_are_refused(void)
{
    builder b = one_entry();
    put_key(&b, "k", LLD_GGUF_STRING), put_u64(&b, UINT64_MAX);
    check_refused(&b, LLD_ERR_CORRUPT,
                  "key 'k': string of 18446744073709551615 bytes at byte 45, file has 45 bytes");
    b = one_entry(), put_array(&b, "k", LLD_GGUF_UINT64, UINT64_C(1) << 61);
    check_refused(&b, LLD_ERR_CORRUPT,
                  "key 'k': array of 2305843009213693952 elements overflows 64 bits");
    b = one_entry(), put_array(&b, "k", LLD_GGUF_UINT8, UINT64_C(1) << 63);
    check_refused(&b, LLD_ERR_CORRUPT,
                  "key 'k': value of 9223372036854775808 bytes at byte 49, file has 49 bytes");
    b = one_entry(), put_array(&b, "k", LLD_GGUF_STRING, UINT32_MAX), put_u64(&b, 0);
    check_refused(&b, LLD_ERR_CORRUPT,
                  "key 'k': array of 4294967295 strings does not fit a file of 57 bytes");
    b = one_entry(), put_array(&b, "k", LLD_GGUF_ARRAY, 1), put_u64(&b, 0), put_u32(&b, 0);
    check_refused(&b, LLD_ERR_UNSUPPORTED, "key 'k': nested arrays are not supported");
    b = one_entry(), put_array(&b, "k", 13, 0);
    check_refused(&b, LLD_ERR_CORRUPT, "key 'k': element type 13 is unknown, must be 0..12");
    b = one_entry(), put_key(&b, "k", LLD_GGUF_BOOL), put(&b, "\2", 1);
    check_refused(&b, LLD_ERR_CORRUPT, "key 'k': bool is 2, must be 0 or 1");
}

static void test_string_values_may_hold_any_bytes(void)
{
    builder b = one_entry();
    put_key(&b, "k", LLD_GGUF_STRING), put_u64(&b, 4), put(&b, "\xFF\0\xC0\n", 4);
    check_accepted(&b, "string of any bytes");
}

static void test_a_long_key_is_cut_in_a_message_between_characters(void)
{
    char key[201] = "";
    for (int i = 0; i < 100; i++) memcpy(key + 2 * i, "\xC3\xA9", 2);
    builder b = one_entry();
    put_key(&b, key, 99);
    uint8_t *copy = NULL;
    lld_gguf gguf;
    CHECK(parse_copy(b.bytes, b.n, &copy, &gguf) == LLD_ERR_CORRUPT, "accepted");
    CHECK(strstr(lld_error_message(), "\xC3\xA9...'") != NULL, "%s", lld_error_message());
    free(copy);
}

static void test_alignment_is_checked(void)
{
    const uint32_t bad[] = {0, 1, 3, 4, 33, UINT32_C(1) << 31, 131072};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        builder b = one_entry();
        put_key(&b, "general.alignment", LLD_GGUF_UINT32), put_u32(&b, bad[i]);
        char message[128];
        snprintf(message, sizeof message,
                 "key 'general.alignment': %" PRIu32 ", must be a power of two in 8..65536",
                 bad[i]);
        check_refused(&b, LLD_ERR_CORRUPT, message);
    }
    builder b = one_entry();
    put_key(&b, "general.alignment", LLD_GGUF_UINT64), put_u64(&b, 32);
    check_refused(&b, LLD_ERR_CORRUPT, "key 'general.alignment': type 10, must be uint32 (4)");
    b = one_entry(), put_key(&b, "general.alignment", LLD_GGUF_UINT32), put_u32(&b, 8);
    check_accepted(&b, "alignment 8");
}

/* A file with the tensor "t" and 256 bytes of data from byte 64 on. */
static builder one_tensor(uint32_t n_dims, const uint64_t *dims, uint32_t type, uint64_t offset)
{
    builder b = {.n = 0};
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "t", n_dims, dims, type, offset);
    put_padding(&b, 32);
    put_data(&b, 256);
    return b;
}

static void check_tensor_refused(uint32_t n_dims, const uint64_t *dims, uint32_t type,
                                 uint64_t offset, int status, const char *message)
{
    builder b = one_tensor(n_dims, dims, type, offset);
    check_refused(&b, status, message);
}

static void test_bad_shapes_are_refused(void)
{
    const uint64_t five[5] = {1, 1, 1, 1, 1}, zero[2] = {32, 0}, negative[2] = {32, UINT64_MAX};
    const uint64_t wraps[4] = {UINT64_C(1) << 32, UINT64_C(1) << 32, 1, 1}, odd[1] = {33};
    const uint64_t wraps_to_32[4] = {32, UINT64_C(1) << 62, 4, 1};
    check_tensor_refused(0, five, LLD_F32, 0, LLD_ERR_CORRUPT,
                         "tensor 't': 0 dimensions, must be 1..4");
    check_tensor_refused(5, five, LLD_F32, 0, LLD_ERR_CORRUPT,
                         "tensor 't': 5 dimensions, must be 1..4");
    check_tensor_refused(2, zero, LLD_F32, 0, LLD_ERR_CORRUPT,
                         "tensor 't': dimension 1 is 0, must be 1..2^63-1");
    check_tensor_refused(2, negative, LLD_F32, 0, LLD_ERR_CORRUPT,
                         "tensor 't': dimension 1 is 18446744073709551615, must be 1..2^63-1");
    check_tensor_refused(4, wraps, LLD_F32, 0, LLD_ERR_CORRUPT,
                         "tensor 't': product of dimensions overflows 64 bits");
    check_tensor_refused(4, wraps_to_32, LLD_Q4_0, 0, LLD_ERR_CORRUPT,
                         "tensor 't': product of dimensions overflows 64 bits");
    check_tensor_refused(1, odd, LLD_Q4_0, 0, LLD_ERR_CORRUPT,
                         "tensor 't': rows of 33 elements, type Q4_0 needs a multiple of 32");
}

static void test_types_that_are_not_supported_are_refused(void)
{
    check_tensor_refused(1, dims_32, 4, 0, LLD_ERR_UNSUPPORTED,
                         "tensor 't': type Q4_2 (4) is not supported: fetch the Q4_0 file");
    check_tensor_refused(1, dims_32, 33, 0, LLD_ERR_UNSUPPORTED,
                         "tensor 't': type Q4_0_8_8 (33) is not supported: fetch the Q4_0 file");
    check_tensor_refused(1, dims_32, 1000, 0, LLD_ERR_UNSUPPORTED,
                         "tensor 't': type 1000 is unknown");
    check_tensor_refused(1, dims_32, UINT32_MAX, 0, LLD_ERR_UNSUPPORTED,
                         "tensor 't': type 4294967295 is unknown");
}

static void test_tensors_outside_the_file_are_refused(void)
{
    builder b = one_tensor(1, dims_32, LLD_F32, 128);
    check_accepted(&b, "the last tensor that fits");
    b.n--;
    check_refused(&b, LLD_ERR_CORRUPT, "tensor 't': ends at byte 320, file has 319 bytes");
    check_tensor_refused(1, dims_32, LLD_F32, 160, LLD_ERR_CORRUPT,
                         "tensor 't': ends at byte 352, file has 320 bytes");
    check_tensor_refused(1, dims_32, LLD_F32, 4, LLD_ERR_CORRUPT,
                         "tensor 't': offset 4 is no multiple of the alignment 32");
    check_tensor_refused(
        1, dims_32, LLD_F32, UINT64_MAX - 31, LLD_ERR_CORRUPT,
        "tensor 't': offset 18446744073709551584 plus 128 bytes overflows 64 bits");
    check_tensor_refused(1, (const uint64_t[1]){INT64_MAX / 4}, LLD_F32, 0, LLD_ERR_CORRUPT,
                         "tensor 't': ends at byte 9223372036854775868, file has 320 bytes");
}

static void check_two_refused(const char *a, uint64_t a_offset, const char *b, uint64_t b_offset,
                              const char *message)
{
    builder file = {.n = 0};
    put_header(&file, 3, 2, 0);
    put_tensor(&file, a, 1, dims_32, LLD_F32, a_offset);
    put_tensor(&file, b, 1, dims_32, LLD_F32, b_offset);
    put_padding(&file, 32);
    put_data(&file, 256);
    check_refused(&file, LLD_ERR_CORRUPT, message);
}

static void test_tensors_share_neither_bytes_nor_names(void)
{
    check_two_refused("a", 0, "b", 96,
                      "tensor 'b': starts at byte 192, but tensor 'a' ends at byte 224");
    check_two_refused("a", 64, "b", 0,
                      "tensor 'a': starts at byte 160, but tensor 'b' ends at byte 224");
    check_two_refused("a", 0, "a", 128, "tensor 'a': occurs twice");
}

int main(void)
{
    test_a_good_file_is_read();
    test_every_prefix_is_refused();
    test_every_flipped_byte_is_survived();
    test_a_file_without_tensors_is_read();
    test_bad_headers_are_refused();
    test_bad_keys_are_refused();
    test_bad_values_are_refused();
    test_string_values_may_hold_any_bytes();
    test_a_long_key_is_cut_in_a_message_between_characters();
    test_alignment_is_checked();
    test_bad_shapes_are_refused();
    test_types_that_are_not_supported_are_refused();
    test_tensors_outside_the_file_are_refused();
    test_tensors_share_neither_bytes_nor_names();
    return check_result();
}

/* check.h - the C tests' only harness: CHECK counts, prints what failed, and main returns check_result(). */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>

static long check_passed, check_failed;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (condition) {                                                                           \
            check_passed++;                                                                        \
        } else if (check_failed++ < 20) {                                                          \
            fprintf(stderr, "%s:%d: CHECK(%s) failed: ", __FILE__, __LINE__, #condition);          \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, "\n");                                                                 \
        }                                                                                          \
    } while (0)

static inline int check_result(void)
{
    printf("%ld passed, %ld failed\n", check_passed, check_failed);
    return check_failed != 0;
}

/* SplitMix64 (Steele, Lea, Flood 2014): seeded test data. */
static inline uint64_t check_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

#endif

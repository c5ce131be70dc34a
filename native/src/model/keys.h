/* keys.h - reads the metadata keys of one architecture, with their limits. The first failure sticks: the
 * readers do nothing after it and return 0, so a caller checks once. */
#ifndef LLD_KEYS_H
#define LLD_KEYS_H

#include "model/config.h"

enum { LLD_KEY_BYTES = 96 };

typedef struct lld_keys {
    const lld_gguf *gguf;
    const char *prefix; /* of every key */
    int status;
} lld_keys;

/* "PREFIX.suffix" in key, which is returned. */
const char *lld_keys_name(const lld_keys *r, const char *suffix, char key[LLD_KEY_BYTES]);

/* An integer in [low, high]; `fallback` < 0 says that the key is required. */
uint32_t lld_keys_count(lld_keys *r, const char *suffix, uint32_t low, uint32_t high,
                        int64_t fallback);
/* An even one in [2, high]. */
uint32_t lld_keys_even(lld_keys *r, const char *suffix, uint32_t high, int64_t fallback);
/* A finite float in [low, high]; `fallback` NaN says that the key is required. */
float lld_keys_float(lld_keys *r, const char *suffix, float low, float high, float fallback);
/* A count of each layer, in [low, high]: an array, or one number for all of them. */
void lld_keys_counts(lld_keys *r, const char *suffix, uint32_t low, uint32_t high, int64_t fallback,
                     uint32_t n_layers, uint32_t counts[LLD_MAX_LAYERS]);

#endif

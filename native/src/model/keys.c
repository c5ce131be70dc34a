/* keys.c - see keys.h. */
#include "model/keys.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/status.h"

const char *lld_keys_name(const lld_keys *r, const char *suffix, char key[LLD_KEY_BYTES])
{
    snprintf(key, LLD_KEY_BYTES, "%s.%s", r->prefix, suffix);
    return key;
}

uint32_t lld_keys_count(lld_keys *r, const char *suffix, uint32_t low, uint32_t high,
                        int64_t fallback)
{
    char key[LLD_KEY_BYTES];
    uint32_t value = 0;
    bool found = false;
    if (r->status != LLD_OK) return 0;
    r->status = lld_gguf_read_u32(r->gguf, lld_keys_name(r, suffix, key), &value, &found);
    if (r->status != LLD_OK) return 0;
    if (!found) {
        if (fallback < 0)
            r->status = lld_fail(LLD_ERR_CORRUPT, "metadata key '%s' is missing", key);
        return fallback < 0 ? 0 : (uint32_t)fallback;
    }
    if (value < low || value > high)
        r->status = lld_fail(LLD_ERR_CORRUPT,
                             "metadata key '%s' is %" PRIu32 ", must be %" PRIu32 " to %" PRIu32,
                             key, value, low, high);
    return value;
}

float lld_keys_float(lld_keys *r, const char *suffix, float low, float high, float fallback)
{
    char key[LLD_KEY_BYTES];
    float value = fallback;
    bool found = false;
    if (r->status != LLD_OK) return 0.0f;
    r->status = lld_gguf_read_f32(r->gguf, lld_keys_name(r, suffix, key), &value, &found);
    if (r->status != LLD_OK) return 0.0f;
    if (!found && isnan(fallback))
        r->status = lld_fail(LLD_ERR_CORRUPT, "metadata key '%s' is missing", key);
    else if (!(value >= low && value <= high))
        r->status = lld_fail(LLD_ERR_CORRUPT, "metadata key '%s' is %g, must be %g to %g", key,
                             (double)value, (double)low, (double)high);
    return value;
}

void lld_keys_counts(lld_keys *r, const char *suffix, uint32_t low, uint32_t high, int64_t fallback,
                     uint32_t n_layers, uint32_t counts[LLD_MAX_LAYERS])
{
    char key[LLD_KEY_BYTES];
    if (r->status != LLD_OK) return;
    const lld_kv *kv = lld_gguf_find(r->gguf, lld_keys_name(r, suffix, key));
    if (kv == NULL || kv->type != LLD_GGUF_ARRAY) {
        const uint32_t count = lld_keys_count(r, suffix, low, high, fallback);
        for (uint32_t i = 0; i < n_layers; i++) counts[i] = count;
        return;
    }
    if (kv->count != n_layers) {
        r->status = lld_fail(LLD_ERR_CORRUPT,
                             "metadata key '%s' has %" PRIu64 " elements, must be %" PRIu32
                             ", one for each layer",
                             key, kv->count, n_layers);
        return;
    }
    for (uint32_t i = 0; i < n_layers; i++) {
        double count = -1.0;
        if (!lld_gguf_number(kv, i, &count) || !(count >= low && count <= high) ||
            count != floor(count)) {
            r->status = lld_fail(LLD_ERR_CORRUPT,
                                 "metadata key '%s' is %g for layer %" PRIu32
                                 ", must be an integer, %" PRIu32 " to %" PRIu32,
                                 key, count, i, low, high);
            return;
        }
        counts[i] = (uint32_t)count;
    }
}

uint32_t lld_keys_even(lld_keys *r, const char *suffix, uint32_t high, int64_t fallback)
{
    const uint32_t value = lld_keys_count(r, suffix, 2, high, fallback);
    if (r->status == LLD_OK && value % 2 != 0)
        r->status = lld_fail(LLD_ERR_CORRUPT, "metadata key '%s.%s' is %" PRIu32 ", must be even",
                             r->prefix, suffix, value);
    return value;
}

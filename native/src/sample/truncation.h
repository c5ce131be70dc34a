/* truncation.h - the filters: each takes candidates out and keeps at least one.
 *
 * Each sees the softmax over the candidates it gets, at their temperature. Ranges of the parameters
 * are checked elsewhere (parameters.c). */
#ifndef LLD_TRUNCATION_H
#define LLD_TRUNCATION_H

#include "sample/candidates.h"

/* The k greatest. k >= 1. */
void lld_candidates_keep_top_k(lld_candidates *c, size_t k);

/* Locally typical sampling (Meister et al. 2022, "Locally Typical Sampling", section 3): the
 * candidates whose surprise is nearest to the entropy, until they hold more than p of the mass. */
void lld_candidates_keep_typical(lld_candidates *c, double p);

/* Nucleus sampling (Holtzman et al. 2020, section 3.1): the fewest candidates that hold p. */
void lld_candidates_keep_top_p(lld_candidates *c, double p);

/* Min-p (Nguyen et al. 2024): the candidates at least min_p times as probable as the best one. */
void lld_candidates_keep_min_p(lld_candidates *c, double min_p);

/* Top-n-sigma (Tang et al. 2024, "Top-nsigma: not all logits are you need", section 3): the
 * candidates whose logit is at most n standard deviations below the greatest. */
void lld_candidates_keep_top_n_sigma(lld_candidates *c, double n);

/* XTC ("exclude top choices"; p-e-w 2024, text-generation-webui pull request 6335), when chance wants
 * it: of the candidates that have the probability `threshold` only the least probable stays, beside
 * those that have less. */
void lld_candidates_exclude_top(lld_candidates *c, double threshold);

/* The temperature between low and high that fits the entropy of the candidates, which is 0 where all
 * mass is on one and 1 where it is even: low + (high - low) * entropy^exponent (llama.cpp,
 * llama_sampler_init_temp_ext). */
double lld_candidates_dynamic_temperature(lld_candidates *c, double low, double high,
                                          double exponent);

#endif

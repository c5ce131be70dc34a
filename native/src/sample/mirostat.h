/* mirostat.h - a truncation that learns: it holds the surprise of what is drawn near a target (Basu
 * et al. 2021, "Mirostat: a neural text decoding algorithm that directly controls perplexity").
 *
 * What it learned is one number, mu, the greatest surprise in bits that a token may have, about. It
 * follows from the logits of all tokens drawn before, not from the tokens alone: whoever makes a
 * sampler anew gives it the mu of the old one. */
#ifndef LLD_MIROSTAT_H
#define LLD_MIROSTAT_H

#include "sample/candidates.h"

/* Version 1 (algorithm 1): estimate the exponent of Zipf's law from the 100 likeliest candidates, and
 * from it how many of them have the surprise mu on average. */
void lld_mirostat_1(lld_candidates *c, double mu, size_t vocab_size);

/* Version 2 (algorithm 2): drop whatever has a surprise above mu. */
void lld_mirostat_2(lld_candidates *c, double mu);

/* mu behind the draw of candidate i, whose weights `lld_candidates_draw` has set. */
double lld_mirostat_learn(const lld_candidates *c, size_t i, double mu, double tau, double eta);

#endif

/* elementary.h - exp, log, softplus, pow, sin and cos with the same bits on every machine.
 *
 * libm's differ in the last bit from one C library or processor to the next, and with them a rotation
 * or a drawn token. These use +, -, * and / of IEEE doubles alone, in a fixed order (never fused:
 * -ffp-contract=off), and functions that IEEE 754 makes exact. Errors are the largest that
 * native/tests/test_elementary.c met against long double, in units of the last place.
 * Kernels on float32 vectors have an exp of their own: vecmath.h. */
#ifndef LLD_ELEMENTARY_H
#define LLD_ELEMENTARY_H

/* e^x; 0 below -745.14, infinity above 709.79, NaN for NaN. Error below 0.57 ulp. */
double lld_exp(double x);

/* Natural logarithm; -infinity for 0, NaN for less. Error below 0.501 ulp. */
double lld_log(double x);

/* ln(1 + e^x), for each head of a recurrence and row, so cheap. Error below 3.1 ulp; x itself above 40, NaN
 * for NaN. */
double lld_softplus(double x);

/* x^y for finite x > 0 whose result is finite and normal. Error below 0.501 ulp. */
double lld_pow(double x, double y);

/* Error below 0.79 ulp for |x| <= 2^27; beyond, x is first reduced by the double nearest 2 pi: the
 * places of such a double are wider than those of a float32 sine. NaN for NaN and infinities. */
void lld_sincos(double x, double *sine, double *cosine);

#endif

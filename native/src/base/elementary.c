/* elementary.c - see elementary.h. Two ways: exp, softplus, sin and cos are called once a candidate or a head or pair of
 * a row, and take a short polynomial in double; log and pow are called a few times a model or a
 * token, and are computed in pairs of doubles.
 *
 * Constants are the numbers they name, rounded; where there are several parts, each is the next piece
 * of the same number. */
#include "base/elementary.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Adding it leaves no fraction bits of |x| < 2^51: x rounded to an integer, which is also in the low
 * bits of the sum. */
static const double TO_INTEGER = 0x1.8p52;

static int64_t bits_of(double x)
{
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* 2^n for a normal result. */
static double power_of_two(int64_t n)
{
    const int64_t bits = (n + 1023) * (INT64_C(1) << 52);
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- exp ------------------------------------------------------------------------------------- */

/* Tang 1989, "Table-driven implementation of the exponential function in IEEE floating-point
 * arithmetic": e^x = 2^(n/16) * e^r, n = round(16 x / ln 2), |r| <= ln 2 / 32, with ln 2 / 16 in two
 * parts (Cody and Waite 1980, chapter 6), the first of 32 bits so that n times it is exact. e^r is
 * Taylor's polynomial: the term left out is r^8 / 8! < 2^-59. */
static const double SIXTEENTHS = 0x1.71547652b82fep+4; /* 16 / ln 2 */
static const double LN2_16_HIGH = 0x1.62e42feep-5, LN2_16_LOW = 0x1.a39ef35793c76p-37;

static const double ROOTS[16][2] = {
    /* 2^(i/16) in two parts */
    {0x1p+0, 0x0p+0},
    {0x1.0b5586cf9890fp+0, 0x1.8a62e4adc610bp-54},
    {0x1.172b83c7d517bp+0, -0x1.19041b9d78a76p-55},
    {0x1.2387a6e756238p+0, 0x1.9b07eb6c70573p-54},
    {0x1.306fe0a31b715p+0, 0x1.6f46ad23182e4p-55},
    {0x1.3dea64c123422p+0, 0x1.ada0911f09ebcp-55},
    {0x1.4bfdad5362a27p+0, 0x1.d4397afec42e2p-56},
    {0x1.5ab07dd485429p+0, 0x1.6324c054647adp-54},
    {0x1.6a09e667f3bcdp+0, -0x1.bdd3413b26456p-54},
    {0x1.7a11473eb0187p+0, -0x1.41577ee04992fp-55},
    {0x1.8ace5422aa0dbp+0, 0x1.6e9f156864b27p-54},
    {0x1.9c49182a3f09p+0, 0x1.c7c46b071f2bep-56},
    {0x1.ae89f995ad3adp+0, 0x1.7a1cd345dcc81p-54},
    {0x1.c199bdd85529cp+0, 0x1.11065895048ddp-55},
    {0x1.d5818dcfba487p+0, 0x1.2ed02d75b3707p-55},
    {0x1.ea4afa2a490dap+0, -0x1.e9c23179c2893p-54},
};

double lld_exp(double x)
{
    if (!(x > -745.14)) return x < 0 ? 0.0 : x;
    if (x > 709.79) return INFINITY;
    const double t = x * SIXTEENTHS + TO_INTEGER, n = t - TO_INTEGER;
    const int64_t k = bits_of(t) - bits_of(TO_INTEGER), i = k & 15, exponent = (k - i) / 16;
    const double r = (x - n * LN2_16_HIGH) - n * LN2_16_LOW;
    double p = 1.0 / 720 + r * (1.0 / 5040);
    p = 1.0 / 120 + r * p;
    p = 1.0 / 24 + r * p;
    p = 1.0 / 6 + r * p;
    p = 0.5 + r * p;
    p = r + r * r * p;
    const double y = ROOTS[i][0] + (ROOTS[i][1] + ROOTS[i][0] * p);
    /* in two steps: 2^exponent alone may be too large or too small for a double */
    return y * power_of_two(exponent / 2) * power_of_two(exponent - exponent / 2);
}

/* ---- softplus ---------------------------------------------------------------------------------- */

/* ln(1 + t), t = e^x: 1 + t = 2^n m, m near 1, and ln m = 2 artanh((m - 1) / (m + 1)) by its series. Where n
 * is 0, m - 1 is t itself, so that a small result keeps its digits. The argument of the series is below
 * 0.172: the term left out is 2^-59 of the first. */
double lld_softplus(double x)
{
    enum { FRACTION_BITS = 52, TERMS = 11 };
    if (!(x <= 40.0)) return x;
    const double t = lld_exp(x), y = 1.0 + t;
    int64_t n = (bits_of(y) >> FRACTION_BITS) - 1023;
    double m = y * power_of_two(-n);
    if (m > 0x1.6a09e667f3bcdp+0) { /* the root of 2 */
        m *= 0.5;
        n++;
    }
    const double s = n == 0 ? t / (2.0 + t) : (m - 1.0) / (m + 1.0), z = s * s;
    double sum = 0.0;
    for (int k = TERMS; k >= 1; k--) sum = z * (1.0 / (2 * k + 1) + sum);
    return (double)n * 0x1.62e42fefa39efp-1 + 2.0 * (s + s * sum);
}

/* ---- sin and cos ----------------------------------------------------------------------------- */

/* x = n * pi/2 + r + rest, |r| <= pi/4: pi/2 in parts of 26 bits, so that n < 2^27 times a part is
 * exact (Cody and Waite 1980, chapter 8). The differences with the first two are exact as well. */
static const double TWO_PI = 0x1.921fb54442d18p+2, TWO_OVER_PI = 0x1.45f306dc9c883p-1;
static const double HALF_PI[] = {0x1.921fb5p+0, 0x1.110b46p-26, 0x1.1a6263p-54,
                                 0x1.8a2e03707344ap-81};
static const double LARGEST_ANGLE = 0x1p27;

/* sin(r + rest): Taylor's polynomial, the term left out is r^19 / 19! < 2^-63. */
static double sine_of(double r, double rest)
{
    const double z = r * r;
    double p = -1.0 / 1307674368000 + z * (1.0 / 355687428096000); /* 15!, 17! */
    p = 1.0 / 6227020800 + z * p;
    p = -1.0 / 39916800 + z * p;
    p = 1.0 / 362880 + z * p;
    p = -1.0 / 5040 + z * p;
    p = 1.0 / 120 + z * p;
    p = -1.0 / 6 + z * p;
    return r + (r * z * p + rest * (1.0 - 0.5 * z));
}

/* cos(r + rest) likewise, left out is r^18 / 18! < 2^-58. What rounding 1 - z/2 loses is added
 * back. */
static double cosine_of(double r, double rest)
{
    const double z = r * r, half = 0.5 * z, most = 1.0 - half;
    double p = -1.0 / 87178291200 + z * (1.0 / 20922789888000); /* 14!, 16! */
    p = 1.0 / 479001600 + z * p;
    p = -1.0 / 3628800 + z * p;
    p = 1.0 / 40320 + z * p;
    p = -1.0 / 720 + z * p;
    p = 1.0 / 24 + z * p;
    return most + (((1.0 - most) - half) + (z * z * p - r * rest));
}

void lld_sincos(double x, double *sine, double *cosine)
{
    if (!(fabs(x) <= LARGEST_ANGLE)) x = fmod(x, TWO_PI);
    const double t = x * TWO_OVER_PI + TO_INTEGER, n = t - TO_INTEGER;
    const double near = (x - n * HALF_PI[0]) - n * HALF_PI[1], third = n * HALF_PI[2];
    double r = near - third, back = r - near;
    double rest = (near - (r - back)) - (third + back); /* Knuth's TwoSum: what r lost */
    rest -= n * HALF_PI[3];
    const double sum = r + rest;
    rest -= sum - r;
    r = sum;
    const double s = sine_of(r, rest), c = cosine_of(r, rest);
    const int64_t quadrant = bits_of(t) & 3;
    *sine = quadrant % 2 == 0 ? s : c;
    *cosine = quadrant % 2 == 0 ? c : s;
    if (quadrant >= 2) *sine = -*sine;
    if (quadrant == 1 || quadrant == 2) *cosine = -*cosine;
}

/* ---- pairs of doubles ------------------------------------------------------------------------ */

/* high + low, |low| at most half a unit in the last place of high (Dekker 1971, "A floating-point
 * technique for extending the available precision"). Products are split by Veltkamp's constant, since
 * not every machine has a fused multiply-add; |x| < 2^996. */
typedef struct pair {
    double high, low;
} pair;

static pair add_exactly(double a, double b)
{
    const double sum = a + b, part = sum - a;
    return (pair){sum, (a - (sum - part)) + (b - part)};
}

static pair multiply_exactly(double a, double b)
{
    const double split = 0x1p27 + 1;
    const double a_high = split * a - (split * a - a), a_low = a - a_high;
    const double b_high = split * b - (split * b - b), b_low = b - b_high;
    const double product = a * b;
    const double low =
        ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    return (pair){product, low};
}

static pair add(pair a, pair b)
{
    const pair sum = add_exactly(a.high, b.high);
    return add_exactly(sum.high, sum.low + (a.low + b.low));
}

static pair multiply(pair a, pair b)
{
    const pair product = multiply_exactly(a.high, b.high);
    return add_exactly(product.high, product.low + (a.high * b.low + a.low * b.high));
}

static pair divide(pair a, double b)
{
    const double quotient = a.high / b;
    const pair product = multiply_exactly(quotient, b);
    const double rest = ((a.high - product.high) - product.low) + a.low;
    return add_exactly(quotient, rest / b);
}

/* ---- log and pow ----------------------------------------------------------------------------- */

static const pair LN2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
static const double ROOT_HALF = 0x1.6a09e667f3bcdp-1;

/* log of a finite x > 0: x = 2^n * m, sqrt(1/2) <= m < sqrt(2), and with s = (m - 1) / (m + 1)
 * log m = 2 (s + s^3/3 + s^5/5 + ...) (Abramowitz and Stegun 1964, 4.1.27). |s| < 0.172: the first
 * term left out is below 2^-85 of the whole. */
static pair log_pair(double x)
{
    int n;
    double m = frexp(x, &n);
    if (m < ROOT_HALF) {
        m *= 2;
        n--;
    }
    const pair denominator = add_exactly(m, 1.0);
    /* m - 1 is exact; one correction for the part of m + 1 that its high double lacks */
    const pair rough = divide((pair){m - 1.0, 0.0}, denominator.high);
    const pair s = add(rough, (pair){-rough.high * (denominator.low / denominator.high), 0.0});
    const pair z = multiply(s, s);
    pair sum = {0.0, 0.0};
    for (int k = 33; k >= 3; k -= 2) sum = multiply(add(divide((pair){1.0, 0.0}, k), sum), z);
    sum = multiply(add((pair){1.0, 0.0}, sum), s);
    const pair log_m = {2 * sum.high, 2 * sum.low};
    return add(multiply((pair){n, 0.0}, LN2), log_m);
}

double lld_log(double x)
{
    if (!(x > 0)) return x == 0 ? -INFINITY : NAN;
    return x > DBL_MAX ? x : log_pair(x).high;
}

/* e^v = 2^n * e^r, |r| <= ln 2 / 2, e^r by Taylor's polynomial of degree 22: left out is 2^-109. */
double lld_pow(double x, double y)
{
    const pair v = multiply((pair){y, 0.0}, log_pair(x));
    const double n = v.high / LN2.high + TO_INTEGER - TO_INTEGER;
    const pair r = add(v, multiply((pair){-n, 0.0}, LN2));
    pair sum = {1.0, 0.0};
    for (int k = 22; k >= 1; k--) sum = add((pair){1.0, 0.0}, divide(multiply(r, sum), k));
    return sum.high * power_of_two((int64_t)n);
}

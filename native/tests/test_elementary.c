/* test_elementary.c - exp, log, pow, sin and cos: against long double, at the edges, and their bits,
 * which must be those of every machine: `make qemu` runs the same sums on two Cortex CPUs. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "base/elementary.h"

enum { POINTS = 20000 };

/* Largest errors allowed, in units of the last place. Half a unit is the rounding of the result; the
 * rest is the polynomial's arithmetic, measured over 2 million points and rounded up. */
static const double EXP_ULP = 0.57, LOG_ULP = 0.501, POW_ULP = 0.501, SINCOS_ULP = 0.79;
static const double SOFTPLUS_ULP = 3.1;

/* Uniform in [0, 1). */
static double uniform(uint64_t *state) { return (double)(check_random(state) >> 11) * 0x1p-53; }

static double error_in_ulp(double got, long double exact)
{
    int exponent;
    frexp((double)exact, &exponent);
    return (double)(fabsl((long double)got - exact) / ldexpl(1.0L, exponent - 53));
}

static void check_error(const char *name, double x, double got, long double exact, double bound)
{
    const double error = error_in_ulp(got, exact);
    CHECK(error <= bound, "%s(%a) = %a: %g ulp, bound %g", name, x, got, error, bound);
}

static void test_values_are_within_their_bounds(void)
{
    uint64_t seed = 1;
    for (int i = 0; i < POINTS; i++) {
        const double u = uniform(&seed), v = uniform(&seed);
        double sine, cosine, x = (v - 0.5) * (i % 2 == 0 ? 40 : 1400);
        check_error("exp", x, lld_exp(x), expl(x), EXP_ULP);
        x = i % 2 == 0 ? u : u * 1e6; /* a probability, a sum over a vocabulary */
        if (x > 0) check_error("log", x, lld_log(x), logl(x), LOG_ULP);
        x = (v - 0.5) * (i % 2 == 0 ? 100 : 4);
        check_error("softplus", x, lld_softplus(x), log1pl(expl(x)), SOFTPLUS_ULP);
        x = 1 + 1e15 * u * u * u; /* a RoPE base to the power of minus a fraction of two */
        check_error("pow", x, lld_pow(x, -2 * v), powl(x, -2 * v), POW_ULP);
        x = (i % 2 == 0 ? 1 : -1) * exp2(57 * u - 30); /* up to 2^27 */
        lld_sincos(x, &sine, &cosine);
        check_error("sin", x, sine, sinl(x), SINCOS_ULP);
        check_error("cos", x, cosine, cosl(x), SINCOS_ULP);
    }
}

static void test_angles_near_multiples_of_a_quarter_turn(void)
{
    for (int n = 1; n < 2000; n++) {
        const double x = n * 0x1.921fb54442d18p+0;
        double sine, cosine;
        lld_sincos(x, &sine, &cosine);
        check_error("sin", x, sine, sinl(x), SINCOS_ULP);
        check_error("cos", x, cosine, cosl(x), SINCOS_ULP);
    }
}

static void test_edges(void)
{
    double sine, cosine;
    CHECK(lld_exp(0) == 1 && lld_exp(-0.0) == 1, "e^0");
    CHECK(lld_exp(-1e300) == 0 && lld_exp(-INFINITY) == 0, "far below: 0");
    CHECK(lld_exp(-745) == 0x1p-1074, "the least subnormal");
    CHECK(lld_exp(709.78) < INFINITY && lld_exp(710) == INFINITY, "far above: infinity");
    CHECK(isnan(lld_exp(NAN)) && isnan(lld_log(NAN)) && isnan(lld_log(-1)), "NaN");
    CHECK(lld_log(1) == 0 && !signbit(lld_log(1)), "log 1");
    CHECK(lld_log(0) == -INFINITY && lld_log(INFINITY) == INFINITY, "ends of log");
    check_error("log", 0x1p-1074, lld_log(0x1p-1074), logl(0x1p-1074L), LOG_ULP);
    CHECK(lld_softplus(0) == 0x1.62e42fefa39efp-1, "softplus of 0: ln 2");
    CHECK(lld_softplus(-INFINITY) == 0 && lld_softplus(1e300) == 1e300, "ends of softplus");
    CHECK(isnan(lld_softplus(NAN)), "softplus of NaN");
    CHECK(lld_pow(10000, 0) == 1 && lld_pow(10000, -1) == 1e-4, "10000^0, 10000^-1");
    CHECK(lld_pow(2, 10) == 1024 && lld_pow(1, -2) == 1, "exact powers");
    lld_sincos(0, &sine, &cosine);
    CHECK(sine == 0 && cosine == 1, "angle 0");
    lld_sincos(1e300, &sine, &cosine);
    CHECK(fabs(sine) <= 1 && fabs(cosine) <= 1, "a huge angle stays on the circle");
    lld_sincos(INFINITY, &sine, &cosine);
    CHECK(isnan(sine) && isnan(cosine), "an infinite angle has no place on it");
}

/* FNV-1a (Fowler, Noll, Vo) over the bits of x. */
static void add_bits(uint64_t *hash, double x)
{
    uint8_t bytes[sizeof x];
    memcpy(bytes, &x, sizeof x);
    for (size_t i = 0; i < sizeof bytes; i++) *hash = (*hash ^ bytes[i]) * 0x100000001B3u;
}

/* The bits of a grid, as x86-64 computed them first. */
static const uint64_t GRID_BITS = 0xD402E63FB844C1BDu;

static void test_bits_are_those_of_every_machine(void)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (int i = 0; i < POINTS; i++) {
        double sine, cosine;
        add_bits(&hash, lld_exp(0.05 * (i - 14900)));
        add_bits(&hash, lld_log(0.0625 + 1.75 * i));
        add_bits(&hash, lld_softplus(-50.0 + 0.0625 * (i % 1600)));
        add_bits(&hash, lld_pow(1.5 + 37.25 * i, -(i % 128) / 64.0));
        lld_sincos(0.37 * i * i, &sine, &cosine);
        add_bits(&hash, sine);
        add_bits(&hash, cosine);
    }
    CHECK(hash == GRID_BITS, "the grid's bits are 0x%016llx", (unsigned long long)hash);
}

int main(void)
{
    test_values_are_within_their_bounds();
    test_angles_near_multiples_of_a_quarter_turn();
    test_edges();
    test_bits_are_those_of_every_machine();
    return check_result();
}

/* list.h - the one list of tensor types: the weight formats of this engine, and the other types that
 * stand in GGUF files, which it refuses by name. docs/weight-format.md says how to add one.
 * Ids, names and sizes as in ggml (ggml.h, enum ggml_type, and ggml-common.h). */
#ifndef LLD_LIST_H
#define LLD_LIST_H

#include <stdbool.h>

/* clang-format off */

/* A format:
 *   name         as users know it; LLD_<name> is its id
 *   function     the same in names of functions: lld_block_<function>, lld_unpack_<function>
 *   id           GGML type id
 *   block        weights of a block: 32, multiplied with Q8 activations, 64 and 128 in parts of 32;
 *                256, with Q8K; 1, with F32
 *   bytes        of a block
 *   offset       whether x = d*q + m (blocks of 32) or d*s*q - dmin*m (of 256); else x = d*q, d*s*q
 *   quantizer    who makes rows of it: quantize.c (plain), blocks_32.c, blocks_256.c; none: it is only read */
#define LLD_FORMATS(X) \
    /* name    function  id  block bytes  offset quantizer */ \
    X(F32,     f32,       0,    1,    4,  false, plain) \
    X(F16,     f16,       1,    1,    2,  false, plain) \
    X(BF16,    bf16,     30,    1,    2,  false, plain) \
    X(Q4_0,    q4_0,      2,   32,   18,  false, 32) \
    X(Q4_1,    q4_1,      3,   32,   20,  true,  32) \
    X(Q5_0,    q5_0,      6,   32,   22,  false, 32) \
    X(Q5_1,    q5_1,      7,   32,   24,  true,  32) \
    X(Q8_0,    q8_0,      8,   32,   34,  false, 32) \
    X(IQ4_NL,  iq4_nl,   20,   32,   18,  false, 32) \
    X(Q2_K,    q2_k,     10,  256,   84,  true,  256) \
    X(Q3_K,    q3_k,     11,  256,  110,  false, 256) \
    X(Q4_K,    q4_k,     12,  256,  144,  true,  256) \
    X(Q5_K,    q5_k,     13,  256,  176,  true,  256) \
    X(Q6_K,    q6_k,     14,  256,  210,  false, 256) \
    X(IQ4_XS,  iq4_xs,   23,  256,  136,  false, 256) \
    X(Q1_0,    q1_0,     41,  128,   18,  false, none) \
    X(Q2_0,    q2_0,     42,   64,   18,  false, none) \
    X(IQ2_XXS, iq2_xxs,  16,  256,   66,  false, none) \
    X(IQ2_XS,  iq2_xs,   17,  256,   74,  false, none) \
    X(IQ2_S,   iq2_s,    22,  256,   82,  false, none) \
    X(IQ3_XXS, iq3_xxs,  18,  256,   98,  false, none) \
    X(IQ3_S,   iq3_s,    21,  256,  110,  false, none) \
    X(MXFP4,   mxfp4,    39,   32,   17,  false, none)

/* A type that is refused: name, id, and the type of file to fetch instead. Q4_2, Q4_3 and those that
 * end in _4_4, _4_8 and _8_8 are gone from ggml too; Q8_1 and Q8_K never were types of files. */
#define LLD_OTHER_TYPES(X) \
    X(Q4_2,      4, "Q4_0")   X(Q4_3,      5, "Q4_1")   X(Q8_1,      9, "Q8_0") \
    X(Q8_K,     15, "Q8_0")   X(IQ1_S,    19, "IQ2_XXS") X(IQ1_M,   29, "IQ2_XXS") \
    X(I8,       24, "F16")    X(I16,      25, "F16")    X(I32,      26, "F16") \
    X(I64,      27, "F16")    X(F64,      28, "F16")    X(Q4_0_4_4, 31, "Q4_0") \
    X(Q4_0_4_8, 32, "Q4_0")   X(Q4_0_8_8, 33, "Q4_0")   X(TQ1_0,    34, "Q2_K") \
    X(TQ2_0,    35, "Q2_K")   X(IQ4_NL_4_4, 36, "IQ4_NL") X(IQ4_NL_4_8, 37, "IQ4_NL") \
    X(IQ4_NL_8_8, 38, "IQ4_NL") X(NVFP4,    40, "MXFP4")

enum lld_type { /* GGML type ids as they stand in files */
#define LLD_ID(name, function, id, block, bytes, offset, quantizer) LLD_##name = id,
    LLD_FORMATS(LLD_ID)
#undef LLD_ID
    LLD_TYPE_COUNT = 43 /* above every id of both lists */
};

/* clang-format on */

#endif

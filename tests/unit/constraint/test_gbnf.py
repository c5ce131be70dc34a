"""GBNF: what grammars take, and what is wrong with those that are refused."""

import pytest

from llamad.errors import LlamadError
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.gbnf import parse_gbnf
from unit.constraint.slow_automaton import SlowAutomaton

CHESS = r"""
# moves, numbered
root ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
"""
LIST = 'root ::= item+\nitem ::= "- " [^\\r\\n\\x0b\\u0085\\u2028\\u2029]+ "\\n"'
C_LIKE = r"""
root ::= (declaration)*
declaration ::= dataType identifier "(" parameter? ")" "{" statement* "}"
dataType ::= "int" ws | "float" ws | "char" ws
identifier ::= [a-zA-Z_] [a-zA-Z_0-9]*
parameter ::= dataType identifier
statement ::=
    ( dataType identifier ws "=" ws expression ";" ) |
    ( identifier ws "=" ws expression ";" ) |
    ( "return" ws expression ";" )
expression ::= term (("+" | "-") term)*
term ::= identifier | [0-9]+ | "(" ws expression ws ")"
ws ::= ([ \t\n]+)
"""

JSON = r"""
root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt/] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= "-"? ([0-9] | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [1-9] [0-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC = r"""
root ::= (expr "=" ws term "\n")+
expr ::= term ([-+*/] term)*
term ::= [a-z] [a-z0-9_]* ws | [0-9]+ ws | "(" ws expr ")" ws
ws ::= [ \t\n]*
"""

CASES = [
    (
        JSON,
        ["{}", '{"a": [1, -2.5e+3, true, null, {"灯": "\\u00e9\\n"}]}', '{\n  "k":"v"}'],
        ["[]", '{"a": 01}', '{"a" 1}', '{"a": "\\x"}', '{"a": 1,}', '{"a": "\n"}'],
    ),
    (ARITHMETIC, ["1 +(a_1 *22 )= x\n", "x=x\ny=1\n"], ["1+=2\n", "(1=2\n", "1 = 2"]),
    ("root ::= [\\u0000-\\U0010ffff]{3}", ["aé😀", "\0\uffff灯"], ["aé", "abcd"]),
    ("root ::= [α-ω一-龥]+", ["λ", "灯光", "ωω"], ["a", "灯a", "Ω"]),
    (CHESS, ["1. e4 e5\n2. Nf3 O-O-O+\n"], ["1. e4 e5\n", "1. e9 e5\n2. a4 a5\n"]),
    (LIST, ["- milk\n- ä 灯\n"], ["milk\n", "- \n", "- a\r\n"]),
    (C_LIKE, ["", "int f(float x){return ( x+1 );}"], ["int f({}", "x"]),
    ("root ::= [^a]", ["b", "é", "\U0010ffff"], ["a", "bb", ""]),
    ('root ::= .{2} "!"', ["灯é!"], ["a!", "abc!"]),
    ('root ::= "a"{2,} | "b"{0,3} "c"', ["aa", "aaaa", "c", "bbbc"], ["a", "bbbbc"]),
    ("root ::= [\\]\\-a] [a-]", ["]a", "--", "a-"], ["b-", "\\a"]),
    ('root ::= "\\x41\\u00e9\\U0001F600\\"\\\\"', ['Aé😀"\\'], ["A"]),
    ('root ::= a-1 | (\n  # inside\n  a-1 a-1\n)\na-1 ::= "x" |\n  "y"', ["x", "yx"], ["xyx", ""]),
    ('root ::= "" "a"?', ["", "a"], ["aa"]),
]


@pytest.mark.parametrize(("text", "taken", "not_taken"), CASES)
def test_texts_are_taken(text: str, taken: list[str], not_taken: list[str]) -> None:
    slow = SlowAutomaton(compile_grammar(parse_gbnf(text)))
    for answer in taken:
        assert slow.accepts(answer.encode()), answer
    for answer in not_taken:
        assert not slow.accepts(answer.encode()), answer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rule 'root'"),
        ('foo ::= "a"', "has no rule 'root'"),
        ("root ::= bar", "line 1, column 10: rule 'bar' is called, but nowhere defined"),
        ('root ::= "a"\nroot ::= "b"', "line 2, column 1: rule 'root' is defined twice"),
        ('root ::= "a', "line 1, column 10: this text is not closed"),
        ("root ::= [a", "the grammar ends too early"),
        ('root ::= ("a"', "line 1, column 10: this parenthesis is not closed"),
        ('root ::= "a")', r"column 13: '\)' is not expected here"),
        ("root ::= [z-a]", "the range ends before it begins"),
        (r'root ::= "\q"', r"\\q is no escape"),
        (r'root ::= "\u12"', "4 hexadecimal digits expected"),
        (r'root ::= "\ud800"', "is no character"),
        ('root ::= "a"{3,2}', "a repetition of 3 to 2 times"),
        ('root ::= "a"{99999999999}', "at most 2147483647"),
        ("root ::= <think>", "a reference to a token is not supported"),
        ('root = "a"', "\"::=\" expected behind 'root'"),
        ("root ::= " + "(" * 5000, "nested more than 100 deep"),
        ("root ::= " + "x" * (1 << 20), "1048585 characters, at most 1048576"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str) -> None:
    with pytest.raises(LlamadError, match=message):
        parse_gbnf(text)

"""What an answer must look like: grammars over bytes, made of GBNF, JSON Schema or choices."""

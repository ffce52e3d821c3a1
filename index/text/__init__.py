"""Full text: tokenizer, inverted lists, BM25."""

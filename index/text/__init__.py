"""Full text: tokenizer, match text, inverted lists, BM25; see docs/text.md."""

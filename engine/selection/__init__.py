"""Stage 7: the subset worth training on: objectives x greedy."""

"""Stage 6: influence of every candidate on every target, predicted by the fitted network."""

"""Stage 1: rows of any format, checked, deduplicated and laid out in parts of equal size."""

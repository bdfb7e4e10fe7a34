"""A teacher, a student and an objective of another package: found by its entry points."""

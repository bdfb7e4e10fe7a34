"""Teachers, a student and objectives of another package: found by its entry points."""

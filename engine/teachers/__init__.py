"""Stages 3 and 4: which pairs are asked about, and the teachers: one file each."""

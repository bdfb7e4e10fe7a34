"""Stages 3 and 4: which pairs a teacher is asked about, and the teachers. One file = one teacher."""

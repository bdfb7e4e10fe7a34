"""Stage 5: the InfluenceNetwork, its fit by Ray Train, and the audit of its fidelity."""

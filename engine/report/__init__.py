"""Stage 8: what a person is shown: fidelity, cost, and why rows were picked."""

"""How far a student may be trusted: measures beside what costs nothing, and the verdict.

fidelity           the measures, on predictions and labels
candidate_means    those of what selection uses
verdict            what they mean
predictions        both, on arrays: `engine.audit_predictions`
audit              both, on labels of a run
drift              whether a student may judge rows that arrived later
"""

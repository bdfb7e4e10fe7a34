"""Stage 2: sentence embeddings of candidates and targets on an actor pool."""

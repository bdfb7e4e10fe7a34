"""One door to third-party weights; nothing here knows of stages, files of a run, or Ray.

`resolve`         where a model setting points: hub id, local path, or an installed package
`gguf`            turns a GGUF file into a plain safetensors directory, once
`encoder`         texts to L2-normalised sentence embeddings
`language_model`  probabilities that a causal language model gives to reference answers

Import the submodules; this file stays empty so that `resolve` costs no torch import.
"""

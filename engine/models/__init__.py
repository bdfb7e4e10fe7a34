"""One door to third-party weights; nothing here knows of stages, files of a run, or Ray.

`resolve`         where a model setting points: hub id, local path, or an installed package
`gguf`            turns a GGUF file into a plain safetensors directory, once
`encoder`         texts to L2-normalised sentence embeddings
`causal_model`    loads causal language models, quantised ones among them
`language_model`  probabilities that one gives to reference answers and to next tokens
`lora`            gradients of single examples, and the warm-up that they are taken along
`prompt_tokenizer` ids of the pieces of a prompt, and of a model's chat template

Import the submodules; this file stays empty so that `resolve` costs no torch import.
"""

"""Does a model do better with a subset: shown in its prompt, or trained on."""

"""Pure numerics: arrays in, arrays out. Nothing here knows of Ray, files or settings.

`units`           the network as two affine maps and a maximum, in fixed point
`tile_loops`      the innermost loops, in vectors
`pairwise`        the matrix of all pairs in blocks
`means`           exact row and column means of that matrix without the matrix
`top`             the k best candidates of each target, over blocks of candidates
`cuda`            all three on a GPU
`columns`         a selection kernel, dense or sparse, as columns to sum over
`bound_heap`      the priority queue of lazy greedy
`response_error`  DELIFT's distance from a reference answer
`rating`          SelectIT's score from the probabilities of the digits
`adam`            LESS's direction: what an Adam step would make of a gradient
`projection`      random projection of long gradients, never stored
`aggregation`     best mean over the sub-tasks of the targets
`arrays`          names of the array types
`compiled`        numba with the options of the house; `threads` its thread count

Import the submodules; this file stays empty so that no kernel costs another's import.
"""

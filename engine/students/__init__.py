"""Students: what learns a teacher's answers from features of rows, one file each.

student            what a student is, and how one is found by its name
vectors            the teacher's vector of a row, by kernel ridge: `engine.VectorStudent`
vector_network     the same by a network with a vector output
kernel             labels of rows or pairs, by kernel ridge
linear             the same two with a linear kernel
cosine             the cosine of the text embeddings, which learns a scale alone
network            the InfluenceNetwork of engine/network
choice             `auto`: which of them predicts unseen candidates best
kernel_ridge       the regression that several stand on
"""

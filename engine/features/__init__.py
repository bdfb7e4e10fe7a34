"""What a student reads of a row, beside the embedding of its text.

feature            the features there are: what each costs, and how much it weighs
rows               the features of an artifact's rows, side by side as one matrix
"""

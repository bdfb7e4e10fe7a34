"""Studies: many networks fitted on the labels of a teacher that was asked about everything."""

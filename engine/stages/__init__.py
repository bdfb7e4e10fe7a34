"""Stages of the pipeline that put the science and the run's files together: thin, one file each."""

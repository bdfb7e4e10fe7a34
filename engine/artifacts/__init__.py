"""What a run leaves on disk or in a bucket, and how it is read.

files.py          single files, whole or not at all
parts.py          data files with a record beside them: finished, wherever and whenever made
run_directory.py  a stage's folder with its manifest, a run with its lock
rows.py           rows and vectors of an artifact by row number
"""

"""The subset of a finished run in the formats that trainers read."""

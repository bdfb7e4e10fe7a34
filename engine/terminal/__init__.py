"""What a person sees in a terminal: what is going on, how long it takes, how it was called."""

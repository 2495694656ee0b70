"""One file a rule, the equation; beside it NAME.yaml with its recipes. Found by file name."""

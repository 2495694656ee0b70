"""`python -m hebbbench`."""

from hebbbench.cli import main

main()

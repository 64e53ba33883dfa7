"""`python -m daskmix.cli`."""

from daskmix.cli import main

main()

"""`python -m copydet` is the command `copydet`."""

from copydet.cli.main import main

main()

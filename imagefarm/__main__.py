"""`python -m imagefarm`: the same as the command `imagefarm`."""

from imagefarm.cli import main

main()

"""`python -m imagefarm` runs the command `imagefarm`."""

from imagefarm.cli import main

main()

"""`python -m zc`: the command line."""

from zc.cli.main import entry

entry()

"""Ctrl+C on the command line, from the first import on: exit code 130, and no traceback."""

import os
import signal
import sys

if sys.argv[0] == "-m":  # as long as `python -m bnlab` is being found; never where the lab is imported
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # some of what is loaded swallows exceptions

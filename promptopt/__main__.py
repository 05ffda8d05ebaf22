"""`python -m promptopt`: the command line, where the `promptopt` script is not on the path."""

import sys

from promptopt.cli.main import main

sys.exit(main())

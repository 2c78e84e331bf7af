"""`python -m keras_penalties` is `keras-penalties`."""

import sys

from keras_penalties_cli.command import main

sys.exit(main())

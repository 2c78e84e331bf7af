"""`python -m keras_penalties` is `keras-penalties`."""

import sys

from keras_penalties.cli import main

sys.exit(main())

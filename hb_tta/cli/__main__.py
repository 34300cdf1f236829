"""``python -m hb_tta.cli``: the ``hb-tta`` command where its script is not on the path."""

import sys

from hb_tta.cli import main

sys.exit(main())

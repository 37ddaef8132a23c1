"""`python -m demo` is the demo."""

import sys

from demo.run import main

sys.exit(main())

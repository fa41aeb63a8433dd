"""``python -m dpem_env``, the same as ``dpem``."""

from dpem_env.cli import main

raise SystemExit(main())

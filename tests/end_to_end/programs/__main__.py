"""Compile the cluster's programs ahead of the tests."""

from tests.end_to_end.programs import main

raise SystemExit(main())

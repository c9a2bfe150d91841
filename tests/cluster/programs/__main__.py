"""Compile the cluster's programs ahead of the tests."""

from tests.cluster.programs import main

raise SystemExit(main())

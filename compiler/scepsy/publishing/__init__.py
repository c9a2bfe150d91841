"""Publishing: commits on top of a remote branch, pull requests, and the checkout brought up to date."""

"""The forges that pull requests can be opened at; a new one is one module here and one entry of the registry."""

"""What all clients of remote APIs share: retries, credentials, and the text of network errors."""

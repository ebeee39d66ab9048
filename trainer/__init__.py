"""A distributed trainer for language models whose numbers do not depend on where it runs."""

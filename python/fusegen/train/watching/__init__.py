"""What has an eye on a run: the names of what goes wrong, and how figures are told."""

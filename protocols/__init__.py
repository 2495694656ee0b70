"""One YAML file a protocol. Found by file name."""

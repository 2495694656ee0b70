"""What a cell measured, complete and honest: the schema, the environment, the atomic store."""

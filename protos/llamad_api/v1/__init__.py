"""Version 1 of the interface: made from the .proto files here by `make proto`, never edited."""

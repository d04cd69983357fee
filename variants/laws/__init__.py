"""The laws of the contract, by what they are about."""

"""The queue of messages and their logs: the contract (`base`) and its implementations, in memory and in Redis."""

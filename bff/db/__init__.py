"""Conversations: kept in a database, edited, and answered by an agent."""

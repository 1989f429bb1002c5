"""Who is asking: authenticators, organisations, tickets."""

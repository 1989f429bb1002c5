"""Operations: metrics, logging, health checks, rate limits, connections and their drain, garbage collection, Redis."""

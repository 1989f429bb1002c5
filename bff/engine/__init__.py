"""The bundled engine: agents and the conversations' database, spoken to over HTTP only.

It answers direct chat until `ENGINE_BASE_URL` names another engine.
"""

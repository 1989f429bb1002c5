"""The bundled engine: agents and the database of conversations. Called over HTTP only.

It also runs direct chat, unless `ENGINE_BASE_URL` names another engine.
"""

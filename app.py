"""The WSGI entry point for gunicorn and `flask run`."""

from bff.app import wsgi_app

app = wsgi_app()

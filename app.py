"""The WSGI entry point for gunicorn and `flask run`. An invalid setting ends the process with a message and status 3."""

import sys

from bff import create_app
from bff.errors import SettingsError

try:
    app = create_app()
except SettingsError as error:
    print(error, file=sys.stderr)
    sys.exit(3)  # gunicorn stops at status 3; after any other it would start new workers again and again.

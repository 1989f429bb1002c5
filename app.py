"""What gunicorn and `flask run` load. A setting that is wrong ends the process with one sentence and status 3."""

import sys

from bff import create_app
from bff.errors import SettingsError

try:
    app = create_app()
except SettingsError as error:
    print(error, file=sys.stderr)
    sys.exit(3)  # gunicorn stops for a 3; after any other status it would start the next worker, for ever.

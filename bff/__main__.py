"""`chat-bff` or `python -m bff`."""

from bff import create_app
from bff.api.cli.main import command_line

main = command_line(create_app)

if __name__ == "__main__":
    main()

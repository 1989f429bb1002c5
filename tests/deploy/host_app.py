"""A Flask application with a page, a 404, a login and tables of its own, and the chat below /assistant. It needs no network."""

import sys

from flask import Flask
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, insert, select

from bff import ChatBFF, HostLogin, load_settings

app = Flask(__name__)
app.secret_key = "the application's own secret key"
settings = load_settings(own_authenticator=True)
engine = create_engine(settings.database_url)
notes = Table("notes", MetaData(), Column("id", Integer, primary_key=True), Column("user", String))
notes.metadata.create_all(engine)


class User(UserMixin):
    def __init__(self, id_: str) -> None:
        self.id = id_


LoginManager(app).user_loader(User)
ChatBFF(app, url_prefix="/assistant", settings=settings, authenticator=HostLogin(lambda: current_user.get_id()))


@app.get("/login/<name>")
def login(name: str) -> str:
    login_user(User(name))
    return "signed in"


@app.get("/")
@login_required
def page() -> str:
    with engine.begin() as connection:
        connection.execute(insert(notes).values(user=current_user.get_id()))
        count = connection.scalar(select(func.count()).where(notes.c.user == current_user.get_id()))
    return f"""<!doctype html><title>Host</title><p id="visits">{count}</p><p id="reply"></p>
<script type="module">
  import {{ streamChat }} from "/assistant/static/sse.js";
  const {{ done }} = streamChat({{ url: "/assistant/api/chat/stream", message: "from the host's page" }});
  document.querySelector("#reply").textContent = (await done).response.responses[0];
</script>"""


@app.errorhandler(404)
def not_found(_: Exception) -> tuple[str, int]:
    return "the host's 404", 404


def refuse_network(event: str, args: tuple[object, ...]) -> None:
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in {"127.0.0.1", "::1"}:
        raise OSError(f"no network, so no connection to {args[1]}")


sys.addaudithook(refuse_network)

"""The rules the house stands on, kept by reading its files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "app.py", ROOT / "gunicorn.conf.py", *sorted((ROOT / "bff").rglob("*.py"))]

LEVELS = [
    {"errors", "sse", "orgs", "trace", "kinds"},
    {
        "settings",
        "safety",
        "events",
        "messages",
        "message_ids",
        "event_ids",
        "identity",
        "keys",
        "jwt_identity",
        "tickets",
        "bodies",
        "url_converters",
        "ops",
    },
    {"transport", "relay", "streaming", "download", "following", "audio", "protocols"},
    {"upstream"},
    {"broker_client", "engine_client"},
    {"unnumbered"},
    {"agents", "diagnosis", "doctor"},
    {"conversations"},
    {"engine"},
    {"services"},
    {"broker"},
    {"routes", "cli"},
    {"factory"},
]
NEIGHBOURS = {"broker", "engine"}

FILE_LINES, FUNCTION_LINES = 315, 32
"""What is longer is two things. Most are far shorter: half of the files have fewer than 90, of the functions fewer than 5."""

DOORS = {
    "flask": {
        "bff/__init__.py",
        "bff/app.py",
        "bff/http/responses.py",
        "bff/http/download.py",
        "bff/api/cli.py",
        "bff/routes",
        "bff/broker/__init__.py",
        "bff/broker/routes.py",
    }
    | {"bff/engine/__init__.py", "bff/engine/hooks.py", "bff/engine/routes.py", "bff/engine/user_data.py"},
    "requests": {"bff/transport"},
    "urllib3": {"bff/transport"},
    "sseclient": {"bff/http/sse.py"},
    "gevent": {"bff/http/waiting/greenlets.py", "bff/ops/monkey.py", "gunicorn.conf.py"},
    "redis": {"bff/ops/redis.py", "bff/broker/redis"},
    "prometheus_client": {"bff/ops/metrics.py"},
    "jwt": {"bff/auth/jwt.py"},
    "cryptography": {"bff/auth/jwt.py"},
    "itsdangerous": {"bff/auth/identity.py", "bff/auth/tickets.py"},
    "sqlalchemy": {"bff/conversations"},
    "alembic": {"bff/conversations/migrations"},
    "click": {"bff/api/cli/db.py", "bff/api/cli.py"},
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(dotted: str) -> str:
    """`bff.broker.queue.memory.MemoryQueue` is in the room `broker`."""
    return dotted.split(".")[1] if dotted.startswith("bff.") else ""


def level(of_room: str) -> int:
    return next((height for height, rooms in enumerate(LEVELS) if of_room in rooms), -1)


def rooms_of_files() -> list[tuple[Path, str]]:
    inside = [path for path in FILES if path.parent != ROOT and path != ROOT / "bff" / "__init__.py"]
    return [(path, path.relative_to(ROOT / "bff").parts[0].removesuffix(".py")) for path in inside]


@pytest.mark.parametrize(("path", "home"), rooms_of_files(), ids=lambda value: name(value) if isinstance(value, Path) else "")
def test_imports_only_point_down(path, home):
    assert level(home) >= 0, f"{home} has no level yet"

    for other in {room(dotted) for dotted in imports(path)} - {"", home}:
        if home in NEIGHBOURS and other in NEIGHBOURS and path.name == "__init__.py":
            continue  # A broker that is a process of its own brings the bundled engine.
        assert level(other) <= level(home), f"{name(path)} imports {other}"
        assert home in {"factory", "services"} or other not in NEIGHBOURS, f"{name(path)} looks into a neighbour, {other}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_outgrows_its_place(path):
    text = path.read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]

    assert len(text.splitlines()) <= FILE_LINES
    assert not [function.name for function in functions if lines_of(function) > FUNCTION_LINES]


def lines_of(function: ast.FunctionDef) -> int:
    """Of what it does: without its signature and its docstring."""
    first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]
    assert function.end_lineno
    return function.end_lineno - first.lineno + 1


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_one_door(library):
    users = {name(path) for path in FILES if any(dotted.split(".")[0] == library for dotted in imports(path))}

    strangers = {user for user in users if not any(user == door or user.startswith(f"{door}/") for door in DOORS[library])}

    assert not strangers


def test_the_environment_has_one_reader():
    readers = {name(path) for path in FILES if "os.environ" in path.read_text() or "getenv" in path.read_text()}

    assert readers == {"bff/config/settings.py"}


def test_nothing_heavy_is_imported_before_gevent_has_patched():
    for path in (
        ROOT / "gunicorn.conf.py",
        ROOT / "bff" / "__init__.py",
        ROOT / "bff" / "broker" / "__init__.py",
        ROOT / "bff" / "settings.py",
        ROOT / "bff" / "errors.py",
    ):
        at_the_top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        top = {getattr(node, "module", None) or node.names[0].name for node in at_the_top}
        assert not {module.split(".")[0] for module in top} & {
            "requests",
            "urllib3",
            "flask",
            "pydantic",
            "sseclient",
            "sqlalchemy",
        }


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_stored_exception_is_raised(path):
    """Its traceback would refer to what stores it: see `bff.errors.detached`."""
    raised = [node.exc for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]
    names = [ast.unparse(what) for what in raised if isinstance(what, ast.Name | ast.Attribute)]

    assert [found for found in names if found.rpartition(".")[2][0].islower()] == []

"""The rules the house stands on, kept by reading its files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "app.py", ROOT / "gunicorn.conf.py", *sorted((ROOT / "bff").rglob("*.py"))]

LEVELS = ["app", "api", "broker", "services", "engine", "db", "upstream", "auth", "ops", "http", "config", "errors"]
"""The packages of `bff`. Imports point to the right."""
NEIGHBOURS = {"broker", "engine"}
"""Spoken to over HTTP only: nothing but what builds them imports them."""
BUILDERS = {"app", "services"}
MAX_ENTRIES = 14
"""Of the folder `bff`."""

FILE_LINES, FUNCTION_LINES = 315, 32
"""What is longer is two things. Most are far shorter: half of the files have fewer than 90, of the functions fewer than 5."""

DOORS = {
    "flask": {
        "bff/__init__.py",
        "bff/app.py",
        "bff/api",
        "bff/broker/app.py",
        "bff/broker/routes.py",
        "bff/engine/app.py",
        "bff/engine/hooks.py",
        "bff/engine/routes.py",
        "bff/engine/user_data.py",
        "bff/http/responses.py",
    },
    "requests": {"bff/upstream/http"},
    "urllib3": {"bff/upstream/http"},
    "sseclient": {"bff/http/sse.py"},
    "gevent": {"bff/http/waiting/greenlets.py", "bff/ops/monkey.py", "gunicorn.conf.py"},
    "redis": {"bff/ops/redis.py", "bff/broker/queue/redis"},
    "prometheus_client": {"bff/ops/metrics.py"},
    "jwt": {"bff/auth/jwt.py"},
    "cryptography": {"bff/auth/jwt.py"},
    "itsdangerous": {"bff/auth"},
    "sqlalchemy": {"bff/db"},
    "alembic": {"bff/db/migrations"},
    "click": {"bff/api/cli"},
}
"""The modules or packages that import a library."""


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


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES if path.parent != ROOT and path != ROOT / "bff" / "__init__.py"}


def imported_modules(path: Path) -> set[str]:
    return {name if name in MODULES else name.rpartition(".")[0] for name in imports(path)} & {*MODULES} - {module(path)}


def package(dotted: str) -> str:
    """`bff.broker.worker` is in the package `broker`."""
    return dotted.split(".")[1]


@pytest.mark.parametrize("importer", MODULES)
def test_imports_only_point_down(importer):
    home = package(importer)

    for imported in imported_modules(MODULES[importer]):
        other = package(imported)
        assert LEVELS.index(other) >= LEVELS.index(home), f"{importer} imports {imported}"
        if other in NEIGHBOURS and other != home:
            assert home in BUILDERS, f"{importer} imports {imported}"


def test_no_module_imports_itself_through_others():
    imported = {name: imported_modules(path) for name, path in MODULES.items()}

    # Modules that import nothing that is left are taken away until no module is left.
    while done := {name for name in imported if not imported[name] & imported.keys()}:
        imported = {name: modules for name, modules in imported.items() if name not in done}

    assert not imported


def test_the_package_has_few_entries():
    entries = {path.relative_to(ROOT / "bff").parts[0] for path in MODULES.values()} | {"__init__.py", "web"}

    assert len(entries) <= MAX_ENTRIES


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

    assert readers == {"bff/config/environment.py"}


def test_nothing_heavy_is_imported_before_gevent_has_patched():
    for path in (
        ROOT / "gunicorn.conf.py",
        ROOT / "bff" / "__init__.py",
        ROOT / "bff" / "broker" / "__init__.py",
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

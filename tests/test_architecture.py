"""The rules of the architecture, checked in the source files."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "app.py", ROOT / "gunicorn.conf.py", *sorted((ROOT / "bff").rglob("*.py"))]

LEVELS = ["__main__", "app", "api", "broker", "services", "engine", "db", "upstream", "auth", "ops", "http", "config", "errors"]
"""The packages of `bff`. Imports point to the right."""
SERVICES = {"broker", "engine"}
"""Called over HTTP only: no other package but BUILDERS imports them."""
BUILDERS = {"app", "services"}
MAX_ENTRIES = 14
"""Of the folder `bff`."""
CONFORMANCE = "bff.api.cli.conformance"

MAX_FILE_LINES, MAX_FUNCTION_LINES = 315, 32
"""Most are far shorter: half of the files have fewer than 90 lines, half of the functions fewer than 5."""

IMPORTERS = {
    "flask": {
        "bff/__init__.py",
        "bff/app",
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
    "gevent": {"bff/http/waiting/greenlets.py", "bff/ops/accepting.py", "bff/ops/gunicorn_config.py", "bff/ops/monkey.py"},
    "redis": {
        "bff/ops/redis.py",
        "bff/ops/redis_pool.py",
        "bff/ops/redis_sentinel.py",
        "bff/ops/redis_cluster.py",
        "bff/ops/redis_scripts.py",
        "bff/broker/queue/redis",
    },
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


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> set[str]:
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES if path.parent != ROOT and path != ROOT / "bff" / "__init__.py"}


def imported_modules(path: Path) -> set[str]:
    return {name if name in MODULES else name.rpartition(".")[0] for name in imports(path)} & {*MODULES} - {module(path)}


def package(dotted: str) -> str:
    """`bff.broker.worker` is in the package `broker`."""
    return dotted.split(".")[1]


@pytest.mark.parametrize("importer", MODULES)
def test_imports_point_down(importer):
    importer_package = package(importer)

    for imported in imported_modules(MODULES[importer]):
        imported_package = package(imported)
        assert LEVELS.index(imported_package) >= LEVELS.index(importer_package), f"{importer} imports {imported}"
        if imported_package in SERVICES and imported_package != importer_package:
            assert importer_package in BUILDERS, f"{importer} imports {imported}"


def test_there_are_no_import_cycles():
    imported = {name: imported_modules(path) for name, path in MODULES.items()}

    # Remove modules that import none of the remaining ones, until nothing remains.
    while leaves := {name for name in imported if not imported[name] & imported.keys()}:
        imported = {name: modules for name, modules in imported.items() if name not in leaves}

    assert not imported


def test_the_package_has_at_most_14_entries():
    entries = {path.relative_to(ROOT / "bff").parts[0] for path in MODULES.values()} | {"__init__.py", "web"}
    entries -= {"__main__.py"}  # Makes `python -m bff` work, and has nothing else.

    assert len(entries) <= MAX_ENTRIES


def test_the_conformance_checks_are_no_part_of_the_server():
    """They judge a server from outside: they import nothing of it, and nothing imports them but their command."""
    checks = {name for name in MODULES if name.startswith(f"{CONFORMANCE}.")} - {f"{CONFORMANCE}.command"}
    imported = {name: imported_modules(path) for name, path in MODULES.items()}

    assert {name for name, modules in imported.items() if modules & checks} - checks == {f"{CONFORMANCE}.command"}
    assert set().union(*(imported[name] for name in checks)) <= checks


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_are_short(path):
    functions = [node for node in nodes(path) if isinstance(node, ast.FunctionDef)]

    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES
    assert not [function.name for function in functions if body_lines(function) > MAX_FUNCTION_LINES]


def body_lines(function: ast.FunctionDef) -> int:
    """The number of lines without signature and docstring."""
    first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]
    assert function.end_lineno
    return function.end_lineno - first.lineno + 1


@pytest.mark.parametrize("library", IMPORTERS)
def test_each_library_is_imported_in_one_place(library):
    users = {name(path) for path in FILES if any(dotted.split(".")[0] == library for dotted in imports(path))}

    others = {
        user for user in users if not any(user == allowed or user.startswith(f"{allowed}/") for allowed in IMPORTERS[library])
    }

    assert not others


def test_only_one_module_reads_the_environment():
    readers = {name(path) for path in FILES if "os.environ" in path.read_text() or "getenv" in path.read_text()}

    assert readers == {"bff/config/environment.py"}


def test_no_patched_library_is_imported_before_monkey_patching():
    for path in (
        ROOT / "gunicorn.conf.py",
        ROOT / "bff" / "ops" / "gunicorn_conf.py",
        ROOT / "bff" / "ops" / "gunicorn_config.py",
        ROOT / "bff" / "__init__.py",
        ROOT / "bff" / "broker" / "__init__.py",
        ROOT / "bff" / "errors.py",
    ):
        imports_at_top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        top = {getattr(node, "module", None) or node.names[0].name for node in imports_at_top}
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
    """It would create a reference cycle: see `bff.errors.detached`."""
    raised = [node.exc for node in nodes(path) if isinstance(node, ast.Raise)]
    names = [ast.unparse(what) for what in raised if isinstance(what, ast.Name | ast.Attribute)]

    assert [name for name in names if name.rpartition(".")[2][0].islower()] == []

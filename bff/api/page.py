"""/: the chat page and its static files."""

from flask import Blueprint, Response, render_template

from bff.api import hooks, services
from bff.api.openapi import PUBLIC_ERRORS, ResponseSpec, describe, responses

bp = Blueprint("page", __name__, template_folder="../web/templates", static_folder="../web/static", static_url_path="/static")
hooks.add_hooks(bp, linkable=True)


@bp.get("/")
@describe(
    "Get the chat page.",
    {200: ResponseSpec("The page.", media_type="text/html"), 304: responses.NOT_MODIFIED},
    PUBLIC_ERRORS,
    public=True,
)
def page() -> Response:
    html = render_template("chat_bff/page.html", root=services.root_path())
    return hooks.revalidated(Response(html, content_type="text/html; charset=utf-8"))

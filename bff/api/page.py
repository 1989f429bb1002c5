"""/: the chat page and its static files."""

from flask import Blueprint, Response, render_template

from bff.api import hooks
from bff.api.openapi import PUBLIC_ERRORS, ResponseSpec, describe

bp = Blueprint("page", __name__, template_folder="../web/templates", static_folder="../web/static", static_url_path="/static")
hooks.add_hooks(bp, linkable=True)


@bp.get("/")
@describe("Get the chat page.", {200: ResponseSpec("The page.", media_type="text/html")}, PUBLIC_ERRORS, public=True)
def page() -> Response:
    return Response(render_template("page.html"), content_type="text/html; charset=utf-8")

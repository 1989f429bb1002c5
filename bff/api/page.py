"""/: the chat page."""

from flask import Blueprint, Response, render_template

bp = Blueprint("page", __name__, template_folder="../web/templates", static_folder="../web/static", static_url_path="/static")


@bp.get("/")
def page() -> Response:
    return Response(render_template("page.html"), content_type="text/html; charset=utf-8")

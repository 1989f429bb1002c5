"""Streamed Markdown: the result does not depend on the pieces, and finished blocks are not replaced."""

import pytest

from tests.web.page import EVERYTHING

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

RENDER_IN_PIECES = """async ([text, size]) => {
    const { Markdown } = await import("/static/markdown.js");
    const frame = () => new Promise(requestAnimationFrame);
    const container = document.querySelector(".log").appendChild(document.createElement("li"));
    const markdown = new Markdown(container);
    const finished = [];
    let replaced = 0;
    for (let at = 0; at < text.length; at += size) {
        markdown.write(text.slice(at, at + size));
        if (size < text.length) await frame();
        if (finished.some((node, index) => container.children[index] !== node)) replaced++;
        finished.splice(0, finished.length, ...[...container.children].slice(0, -1));
    }
    markdown.end();
    return [container.innerHTML, replaced];
}"""
RENDER = """async (text) => {
    const { render } = await import("/static/markdown.js");
    const container = document.createElement("div");
    render(container, text);
    container.querySelectorAll("figcaption").forEach((caption) => caption.remove());
    return container.innerHTML;
}"""

COMPARE = """async ([text, twice]) => {
    const { render } = await import("/static/markdown.js");
    const container = document.createElement("div");
    const measure = (text, times) => {
        const start = performance.now();
        for (let count = times; count; count--) container.replaceChildren(), render(container, text);
        return performance.now() - start;
    };
    let times = 1;
    while (measure(text, times) < 10) times *= 2;
    const least = (text) => Math.min(...Array.from({ length: 5 }, () => measure(text, times)));
    return least(twice) / least(text);
}"""
"""How many times as long rendering the second text takes as the first."""


@pytest.fixture(scope="module")
def page(browser, server):
    page = browser.new_page()
    page.goto(server.url)
    return page


@pytest.mark.slow
def test_pieces_render_like_the_whole_text_and_replace_no_finished_block(page):
    whole, _ = page.evaluate(RENDER_IN_PIECES, [EVERYTHING * 2, 10_000])

    for size in (2, 40):
        pieces, replaced = page.evaluate(RENDER_IN_PIECES, [EVERYTHING * 2, size])
        assert (pieces, replaced) == (whole, 0)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a **b** _c_ ~~d~~", '<p dir="auto">a <strong>b</strong> <em>c</em> <s>d</s></p>'),
        ("***b***", '<p dir="auto"><strong><em>b</em></strong></p>'),
        ("2 * 3 * 4, snake_case_name, **open", '<p dir="auto">2 * 3 * 4, snake_case_name, **open</p>'),
        ("`` a`b `` `c", '<p dir="auto"><code dir="ltr">a`b</code> `c</p>'),
        (r"\*a\*", '<p dir="auto">*a*</p>'),
        ("[x](javascript:alert(1))", '<p dir="auto">[x](javascript:alert(1))</p>'),
        (
            "- a\n- b\n\n3. c",
            '<ul dir="auto"><li><span>a</span></li><li><span>b</span></li></ul>'
            '<ol start="3" dir="auto"><li><span>c</span></li></ol>',
        ),
        ("a\n# b", '<p dir="auto">a</p><h2 dir="auto">b</h2>'),
        (
            "~~~\n<b>\n~~~\nc",
            '<figure class="code" dir="ltr"><pre tabindex="0"><code>&lt;b&gt;</code></pre></figure><p dir="auto">c</p>',
        ),
        ("> a\n> > b", '<blockquote dir="auto"><p>a</p><blockquote><p>b</p></blockquote></blockquote>'),
        ("a\n\n---\n\nb", '<p dir="auto">a</p><hr dir="auto"><p dir="auto">b</p>'),
    ],
)
def test_markdown_is_rendered(page, text, html):
    assert page.evaluate(RENDER, text) == html


def test_links_open_web_addresses_without_referrer(page):
    link = 'rel="noopener noreferrer" target="_blank"'

    html = page.evaluate(RENDER, "[x](https://a.test/b_(c)) http://d.test/e, mailto:f")

    assert html == (
        f'<p dir="auto"><a href="https://a.test/b_(c)" {link}>x</a> '
        f'<a href="http://d.test/e" {link} dir="ltr">http://d.test/e</a>, mailto:f</p>'
    )


@pytest.mark.parametrize("piece", ["*a ", "`", "[", "[a](", "> ", "- ", "**a*", "| a ", "http://", "\\"])
def test_hostile_texts_are_rendered_in_time(page, piece):
    assert page.evaluate(RENDER, piece * 20_000 + "\n\n" + piece * 200)


@pytest.mark.alone
@pytest.mark.parametrize(
    "parts",
    [
        ("", "~", "`"),
        ("", "`", "x`"),
        ("# ", " ", "x\u2028"),
        ("|\n", " ", "x"),
        ("|\n-", " ", "x"),
        ("` ", "x", "`"),
        ("http://a", ".", "b"),
    ],
)
def test_rendering_time_is_linear(page, parts):
    head, piece, tail = parts

    ratio = page.evaluate(COMPARE, [head + piece * length + tail for length in (1500, 3000)])

    assert ratio < 3, "quadratic time would be 4"

"""Markdown that streams in: the same in any pieces, and what stands stays."""

import pytest

from tests.web.page import EVERYTHING

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

PIECES = """async ([text, size]) => {
    const { Markdown } = await import("/static/markdown.js");
    const frame = () => new Promise(requestAnimationFrame);
    const place = document.querySelector(".log").appendChild(document.createElement("li"));
    const markdown = new Markdown(place);
    const standing = [];
    let replaced = 0;
    for (let at = 0; at < text.length; at += size) {
        markdown.write(text.slice(at, at + size));
        if (size < text.length) await frame();
        if (standing.some((node, index) => place.children[index] !== node)) replaced++;
        standing.splice(0, standing.length, ...[...place.children].slice(0, -1));
    }
    markdown.end();
    return [place.innerHTML, replaced];
}"""
SHOWN = """async (text) => {
    const { render } = await import("/static/markdown.js");
    const place = document.createElement("div");
    render(place, text);
    place.querySelectorAll("figcaption").forEach((one) => one.remove());
    return place.innerHTML;
}"""

TWICE = """async ([text, twice]) => {
    const { render } = await import("/static/markdown.js");
    const place = document.createElement("div");
    const took = (text, times) => {
        const began = performance.now();
        for (let left = times; left; left--) place.replaceChildren(), render(place, text);
        return performance.now() - began;
    };
    let times = 1;
    while (took(text, times) < 10) times *= 2;
    const least = (text) => Math.min(...Array.from({ length: 5 }, () => took(text, times)));
    return least(twice) / least(text);
}"""
"""How many times as long the second takes."""


@pytest.fixture(scope="module")
def page(browser, server):
    page = browser.new_page()
    page.goto(server.url)
    return page


def test_pieces_make_the_same_as_the_whole_and_replace_nothing_that_stands(page):
    whole, _ = page.evaluate(PIECES, [EVERYTHING * 2, 10_000])

    for size in (2, 40):
        pieces, replaced = page.evaluate(PIECES, [EVERYTHING * 2, size])
        assert (pieces, replaced) == (whole, 0)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a **b** _c_ ~~d~~", "<p>a <strong>b</strong> <em>c</em> <s>d</s></p>"),
        ("***b***", "<p><strong><em>b</em></strong></p>"),
        ("2 * 3 * 4, snake_case_name, **open", "<p>2 * 3 * 4, snake_case_name, **open</p>"),
        ("`` a`b `` `c", "<p><code>a`b</code> `c</p>"),
        (r"\*a\*", "<p>*a*</p>"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        (
            "- a\n- b\n\n3. c",
            '<ul><li><span>a</span></li><li><span>b</span></li></ul><ol start="3"><li><span>c</span></li></ol>',
        ),
        ("a\n# b", "<p>a</p><h2>b</h2>"),
        ("~~~\n<b>\n~~~\nc", '<figure class="code"><pre tabindex="0"><code>&lt;b&gt;</code></pre></figure><p>c</p>'),
        ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
    ],
)
def test_what_is_written_is_shown(page, text, html):
    assert page.evaluate(SHOWN, text) == html


def test_a_link_leads_to_the_web_and_takes_nothing_along(page):
    link = 'rel="noopener noreferrer" target="_blank"'

    shown = page.evaluate(SHOWN, "[x](https://a.test/b_(c)) http://d.test/e, mailto:f")

    assert shown == (
        f'<p><a href="https://a.test/b_(c)" {link}>x</a> <a href="http://d.test/e" {link}>http://d.test/e</a>, mailto:f</p>'
    )


@pytest.mark.parametrize("piece", ["*a ", "`", "[", "[a](", "> ", "- ", "**a*", "| a ", "http://", "\\"])
def test_a_hostile_text_takes_no_longer_than_any_other(page, piece):
    assert page.evaluate(SHOWN, piece * 20_000 + "\n\n" + piece * 200)


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
def test_a_text_of_twice_the_length_takes_about_twice_the_time(page, parts):
    head, piece, tail = parts

    ratio = page.evaluate(TWICE, [head + piece * length + tail for length in (1500, 3000)])

    assert ratio < 3, "of the squares, four"

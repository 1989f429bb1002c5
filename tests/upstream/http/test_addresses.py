"""To which URLs a request may be sent that a caller chose (server-side request forgery)."""

import pytest

from bff.upstream.http.addresses import origin_of, problem_of, syntax_problem_of

PRIVATE_HOSTS = """
127.0.0.1 127.0.0.53 127.255.255.254 localhost LOCALHOST localhost. 0.0.0.0 0 10.0.0.1 10.255.255.255 172.16.0.1
172.31.255.255 192.168.0.1 192.168.1.254 169.254.169.254 169.254.170.2 100.64.0.1 100.100.100.200 168.63.129.16
192.0.0.192 192.88.99.1 198.18.0.1 192.0.2.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1
255.255.255.255 2130706433 0x7f000001 0x7f.0.0.1 0x7f.1 0177.0.0.1 017700000001 127.1 127.0.1 3232235521 0xa9fea9fe
0251.0376.0251.0376 2852039166 012.0.0.1 [::] [::1] [::127.0.0.1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:10.0.0.1]
[::ffff:169.254.169.254] [64:ff9b::127.0.0.1] [64:ff9b::a00:1] [64:ff9b:1::808:808] [2002:7f00:1::] [2002:808:808::1]
[2001:db8::1] [fc00::1] [fd00:ec2::254] [fe80::1] [fec0::1] [ff02::1] [100::1] [5f00::1] [2001::1]
"""
PUBLIC_HOSTS = """
8.8.8.8 1.1.1.1 134744072 0x08080808 010.8.8.8 [2606:4700:4700::1111] [::ffff:8.8.8.8] [64:ff9b::8.8.8.8]
172.15.0.1 172.32.0.1 no-such-host.invalid
"""


@pytest.mark.parametrize("host", PRIVATE_HOSTS.split())
def test_private_addresses_are_refused_in_every_form(host):
    assert problem_of(f"https://{host}/hook") == "is in a private network"
    assert problem_of(f"https://{host}:8443/hook") == "is in a private network"


def test_the_table_is_long_enough():
    assert len(PRIVATE_HOSTS.split()) >= 60


@pytest.mark.parametrize("host", PUBLIC_HOSTS.split())
def test_public_addresses_and_unknown_hosts_are_accepted(host):
    assert problem_of(f"https://{host}/hook?x=1") == ""


def test_an_allowed_origin_may_be_private_and_plain():
    allowed = ("http://localhost:8080", "https://10.0.0.1", "https://[fd00::1]")

    for url in ("http://localhost:8080/hook", "https://10.0.0.1:443/", "https://10.0.0.1", "https://[fd00::1]/x"):
        assert problem_of(url, allowed) == ""
    for url in ("http://localhost:8081/", "http://localhost/", "http://10.0.0.1/", "https://10.0.0.1:8443/"):
        assert problem_of(url, allowed) != ""


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "//8.8.8.8/",
        "http://8.8.8.8/",
        "ftp://8.8.8.8/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user@8.8.8.8/",
        "https://user:secret@8.8.8.8/",
        "https://8.8.8.8/#fragment",
        "https://8.8.8.8:99999/",
        "https://8.8.8.8:0/",
        "https://8.8.8.8:port/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://8.8.8.8\\@127.0.0.1/",
        "https://8.8.8.8/ x",
        "https://8.8.8.8/\r\nX: y",
        "https://exämple.com/",
        f"https://8.8.8.8/{'x' * 2048}",
    ],
)
def test_other_urls_are_refused(url):
    assert syntax_problem_of(url) != ""


def test_an_origin_is_that_of_a_browser():
    assert origin_of("HTTPS://Example.COM:443/x?y") == "https://example.com"
    assert origin_of("http://example.com.:8080") == "http://example.com:8080"
    assert origin_of("https://[FD00::1]:8443/") == "https://[fd00::1]:8443"

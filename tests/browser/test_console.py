"""The console in a real browser: every page's numbers against the chain, under chaos, for everybody."""

import json
import re
from collections import Counter
from urllib.request import urlopen

import pytest

from console_demo import AXE, watched
from pocket_console.formatting import amount
from pocket_console.relayer_metrics import sample_of

pytestmark = [pytest.mark.browser, pytest.mark.processes, pytest.mark.redis, pytest.mark.timeout(420)]
PATHS = ["/", "/sessions", "/sessions?show=ended", "/suppliers", "/services", "/fleet", "/sessions?session=ffffffffff"]


@pytest.fixture
def page(browser, demo):
    """Open a page whose complaints fail the test."""
    errors = []
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    made = context.new_page()
    watched(made, errors)
    yield made
    context.close()
    assert errors == []


def fetched(url):
    with urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def number(text):
    return int(re.sub(r"[^0-9]", "", text) or 0)


def upokt(page, selector):
    """Return an amount on a page, in upokt: the demo's are below one POKT."""
    text = page.locator(selector).inner_text()
    assert text.endswith("upokt"), text
    return number(text)


def test_the_demo_paid_every_relay_while_the_console_watched(demo):
    assert len(demo.settled) == len(demo.ends) > 6
    assert demo.errors == []


def test_an_open_session_is_shown_with_every_relay_that_was_acknowledged(demo):
    assert demo.served.total() == 60
    assert demo.shown == demo.served


def test_the_overview_shows_what_the_chain_paid(page, demo):
    paid = sum(end.earned_upokt for end in demo.settled)
    page.goto(demo.console)
    if page.locator("table tbody tr th[scope=row]:has-text('-')").count() > 1:
        pytest.skip("the demo ran past midnight UTC, so its earnings are those of two days")
    assert upokt(page, "#earned-today") == paid
    tile = page.locator("#earned-today").locator("..").inner_text()
    recipients = Counter()
    for end in demo.settled:
        recipients.update(end.supplier_side)
    for address, earned in recipients.items():
        assert page.locator(f".tile dt[title='{address}'] + dd").inner_text() == amount(earned)
    assert f"{len(demo.settled)} sessions" in tile
    assert f"{sum(end.relays for end in demo.settled):,} relays" in tile
    assert (upokt(page, "#at-risk"), upokt(page, "#lost-today")) == (0, 0)
    assert page.locator("#earned-today").is_visible()


def test_every_settled_session_is_listed_with_its_relays_and_earnings(page, demo):
    page.goto(f"{demo.console}/sessions?show=ended")
    shown = {}
    while True:
        for row in page.locator("table.sessions tbody tr").all():
            cells = row.locator("td").all_inner_texts()
            session_id = row.locator("td a").first.get_attribute("title")
            supplier = row.locator("td.wide a").get_attribute("title")
            shown[session_id, supplier] = (cells[1], cells[2], number(cells[4]), cells[5])
        following = page.locator("a[rel=next]")
        if not following.count():
            break
        following.click()
    expected = {
        (end.session_id, end.supplier): ("settled", end.service_id, end.relays, amount(end.earned_upokt))
        for end in demo.settled
    }
    assert {pair: row for pair, row in shown.items() if row[0] == "settled"} == expected


def test_a_session_leads_to_its_blocks_and_transactions_on_the_chain(page, demo):
    page.goto(f"{demo.console}/sessions?show=ended")
    page.locator("table.sessions tbody tr:has-text('settled') td a").first.click()
    page.wait_for_selector("#transactions")
    facts = page.locator("dl.grid").inner_text()
    end = next(end for end in demo.settled if end.session_id in page.url and end.supplier in page.url)
    assert amount(end.earned_upokt) in facts
    links = [link.get_attribute("href") for link in page.locator("#transactions ~ dl a").all()]
    assert links
    for link in links:
        result = json.loads(fetched(link))["result"]
        assert result["tx_result"]["code"] == 0
    block = page.locator("dl.grid a[href*='block?height=']").first.get_attribute("href")
    assert json.loads(fetched(block))["result"]["block"]["header"]["chain_id"] == "pocket"


def test_each_supplier_shows_its_stake_and_what_it_earned(page, demo):
    page.goto(f"{demo.console}/suppliers")
    earned = Counter()
    for end in demo.settled:
        earned[end.supplier] += end.earned_upokt
    rows = page.locator("tbody tr").all()
    assert len(rows) == len(earned) == 3
    for row in rows:
        address = row.locator("th a").last.get_attribute("title")
        cells = row.locator("td").all_inner_texts()
        assert cells[0] == "staked"
        assert cells[4] == "1/1"
        assert cells[-1] == amount(earned[address])
    page.locator("tbody tr th a").last.click()
    page.wait_for_selector("#earned-total")
    address = page.url.rpartition("/")[2]
    assert upokt(page, "#earned-total") == earned[address]
    assert page.locator("canvas").count() >= 1


def test_services_show_what_the_relayer_counted(page, demo):
    page.goto(f"{demo.console}/services")
    counted = sample_of(fetched(f"{demo.relayer_admin}/metrics"), 0.0).services
    assert counted["eth"].served >= demo.served.total()
    for name, totals in counted.items():
        shown = page.locator(f"[data-fact='served-{name}']").inner_text()
        assert number(shown) == totals.served


def test_the_fleet_shows_every_shard_with_its_holder(page, demo):
    page.goto(f"{demo.console}/fleet")
    states = {name: json.loads(fetched(f"{url}/status/state")) for name, url in demo.miners.items()}
    expected = {int(shard): name for name, state in states.items() for shard in state["shards"]}
    cells = page.locator(".shards li").all()
    shown = {number(cell.locator(".shard").inner_text()): cell.locator(".holder").inner_text() for cell in cells}
    assert shown == expected
    assert len(expected) == next(iter(states.values()))["shard_count"]
    names = page.locator("tbody th").all_inner_texts()
    assert set(names) == {"miner", "miner-1", "relayer"}


def test_a_page_renews_itself_with_every_block(page, demo):
    page.goto(demo.console)
    page.wait_for_selector("#connection[data-state=on]")
    page.evaluate("window.stays = true")
    before = number(page.locator(".headline p a").inner_text())
    page.wait_for_function(
        "before => parseInt(document.querySelector('.headline p a').textContent.replace(/[^0-9]/g, '')) > before",
        arg=before, timeout=30_000,
    )  # fmt: skip
    assert page.evaluate("window.stays")


def test_filters_change_the_table_and_the_address_without_losing_the_focus(page, demo):
    page.goto(f"{demo.console}/sessions")
    supplier = demo.settled[0].supplier
    box = page.get_by_label("Supplier or application")
    box.fill(supplier)
    page.wait_for_url(f"**supplier={supplier}*")
    page.wait_for_function(
        "supplier => [...document.querySelectorAll('td.wide a')].every(a => a.title === supplier)", arg=supplier
    )
    assert page.locator("td.wide a").count() == page.locator("table.sessions tbody tr").count() > 0
    assert box.evaluate("element => element === document.activeElement")
    assert box.input_value() == supplier


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_has_an_accessibility_violation_or_is_wider_than_the_screen(browser, demo, scheme, width):
    errors = []
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    watched(page, errors)
    end = demo.settled[0]
    for path in [*PATHS, f"/sessions/{end.supplier}/{end.session_id}", f"/suppliers/{end.supplier}"]:
        page.goto(demo.console + path)
        page.wait_for_selector("#connection[data-state=on]")
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
        named = [(row["id"], [node["html"] for node in row["nodes"]][:3]) for row in found]
        assert named == [], f"{path}: {named}"
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), path
    context.close()
    assert errors == []


def test_everything_can_be_read_and_reached_without_scripts(browser, demo):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.goto(demo.console)
    assert upokt(page, "#earned-today") == sum(end.earned_upokt for end in demo.settled)
    page.get_by_role("link", name="Sessions", exact=True).click()
    page.get_by_label("Service").select_option("weather")
    page.get_by_role("button", name="Filter").click()
    assert "service=weather" in page.url
    services = page.locator("table.sessions tbody td:nth-child(3)").all_inner_texts()
    assert set(services) == {"weather"}
    page.goto(f"{demo.console}/suppliers")
    page.locator("tbody th a").first.click()
    page.get_by_text("As a table").first.click()
    assert page.locator(".chart-card td").first.is_visible()
    context.close()


def test_the_keyboard_reaches_the_content_and_every_page(page, demo):
    page.goto(demo.console)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.goto(demo.console)
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Sessions"
    page.keyboard.press("Enter")
    page.wait_for_url("**/sessions")


def test_no_key_is_in_any_page(demo):
    keys = re.findall(r"\b[0-9a-f]{64}\b", (AXE.parents[3] / "manifests/samples/trial/suppliers.yaml").read_text())
    end = demo.settled[0]
    pages = [*PATHS, f"/sessions/{end.supplier}/{end.session_id}", f"/suppliers/{end.supplier}"]
    texts = [fetched(demo.console + path) for path in pages]
    texts += [fetched(url + path) for url in demo.miners.values() for path in ("/status/state", "/status/sessions",
              "/status/outcomes", "/status/suppliers", "/report")]  # fmt: skip
    assert keys
    assert not [key for key in keys for text in texts if key in text.lower()]

"""Back, Forward and the address in a real browser: one entry for a page, each with its own view and run."""

import pytest
from lab_browser import RESTED, SHORT, SLOW, button, opened, status, trained, until

pytestmark = pytest.mark.browser


def test_back_and_forward_go_from_page_to_page_and_the_page_follows_the_address(page, server):
    asked = "document.querySelector('.live-plot')?.dataset.address?.includes('{}')"
    run = trained(page, server, SHORT, "done")

    def at(path: str, run_id: str) -> None:
        until(page, f"location.pathname === '/{path}' && location.search.includes('run={run_id}')")
        until(page, asked.format(run_id))
        page.wait_for_selector(RESTED, timeout=SLOW)

    opened(page, f"{server}/?run={run}")
    entries = page.evaluate("history.length")
    status(page, "done")
    button(page, "Train").click()
    until(page, f"!location.search.includes('run={run}')")
    status(page, "done")
    other = page.evaluate("new URLSearchParams(location.search).get('run')")
    assert page.evaluate("history.length") == entries, "Back does not go to a question asked here before"
    page.get_by_role("link", name="Inference").click()
    at("inference", other)
    page.locator(".st-key-head [data-testid=stSelectbox] input").click()
    page.get_by_role("option").nth(1).click()
    at("inference", run)
    page.get_by_role("link", name="Why it works").click()
    at("why", run)
    assert page.evaluate("history.length") == entries + 2, "one for each page"
    for pages, path, run_id in ((-2, "", other), (1, "inference", run), (1, "why", run), (-1, "inference", run)):
        page.evaluate("pages => history.go(pages)", pages)
        at(path, run_id)


def test_the_view_stands_in_the_address_where_reload_and_back_find_it(page, server):
    def at(path: str, query: str, figure: str) -> None:
        until(page, f"location.pathname === '/{path}' && location.search === '{query}'")
        until(page, f"document.querySelector('.live-plot')?.dataset.address?.endsWith('/{figure}')")
        page.wait_for_selector(RESTED, timeout=SLOW)

    opened(page, server)
    entries = page.evaluate("history.length")
    page.get_by_role("radio", name="Gradient flow", exact=True).click()
    at("", "?view=Gradient+flow", "gradient_flow")
    assert page.evaluate("history.length") == entries, "Back does not go to a view chosen here before"
    page.reload()
    at("", "?view=Gradient+flow", "gradient_flow")
    page.get_by_role("link", name="Inference").click()
    at("inference", "", "three_losses")
    page.get_by_role("radio", name="Population", exact=True).click()
    at("inference", "?view=Population", "in_practice")
    page.get_by_role("link", name="Lab").click()
    at("", "?view=Gradient+flow", "gradient_flow")
    page.get_by_role("radio", name="Distributions", exact=True).click()
    at("", "?view=Distributions", "distributions")
    page.go_back()
    at("inference", "?view=Population", "in_practice")
    page.go_back()
    at("", "?view=Gradient+flow", "gradient_flow")
    page.get_by_role("radio", name="Loss and accuracy", exact=True).click()
    at("", "", "loss")


# what is written into the address of the page that is left, once another is opened; before Streamlit goes on
LEFT = """elsewhere => {
  const { replaceState } = history, written = [];
  history.replaceState = (state, title, address) => written.push(address);
  history.pushState({}, '', elsewhere);
  history.replaceState = replaceState;
  return written; }"""


@pytest.mark.parametrize(
    ("own", "then", "elsewhere", "left"),
    [
        ("/?view=Own", "/?view=Theirs", "/inference?view=Theirs", ["/?view=Own"]),
        ("/?view=Own", "/?view=Own", "/inference?view=Own", ["/?view=Own"]),
        ("/?view=Own", "/?view=Chosen", "/inference", []),
        ("/?embed=true&view=Own", "/?embed=true", "/inference?embed=true", []),  # Streamlit keeps that
    ],
)
def test_a_page_whose_query_comes_before_itself_leaves_the_page_before_its_own(
    page, server, own, then, elsewhere, left
):
    opened(page, server)
    pushed = f"""([own, then, elsewhere]) => {{
      for (const address of [own, then]) history.pushState({{}}, '', address);
      return ({LEFT})(elsewhere); }}"""
    assert page.evaluate(pushed, [own, then, elsewhere]) == [server + address for address in left]


def test_a_late_address_of_another_page_leaves_the_page_that_back_has_opened_its_own(page, server):
    opened(page, server)
    back = f"""new Promise(tell => {{
      for (const address of ['/?view=Old', '/?view=Own', '/inference']) history.pushState({{}}, '', address);
      addEventListener('popstate', () => tell(({LEFT})('/why?view=Own')), {{once: true}});
      history.back(); }})"""
    assert page.evaluate(back) == [f"{server}/?view=Own"]

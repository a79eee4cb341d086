"""Every page, wide and narrow, light and dark: no complaint, nothing sideways, nothing that WCAG 2.2 AA forbids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from classifier import services
from classifier.models import CellImage, ModelVersion
from tests.browser.conftest import Visit
from tests.conftest import PASSWORD
from tests.factories import prediction_of

pytestmark = pytest.mark.browser

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
COLOUR_RULES = ["color-contrast", "link-in-text-block"]
RUN_AXE = """async (only) => {
  const found = await axe.run(document, { runOnly: only, resultTypes: ["violations"] });
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
}"""
# A colour that fades into another one is neither for a moment.
AT_ONCE = "() => document.querySelectorAll('*').forEach((each) => { each.style.transition = 'none'; })"
SIGNED_OUT = (
    "/accounts/login/",
    "/about/",
    "/accounts/password/reset/",
    "/accounts/password/reset/done/",
    "/accounts/password/reset/key/1-bad/",
    "/accounts/password/reset/key/done/",
    "/accounts/inactive/",
)
SIGNED_IN = (
    "/",
    "/about/",
    "/cases/",
    "/cases/open/",
    "/images/",
    "/laboratory/",
    "/notifications/",
    "/trials/",
    "/batches/",
    "/accounts/",
    "/accounts/sessions/",
    "/accounts/tokens/",
    "/accounts/password/change/",
    "/accounts/logout/",
    "/no-such-page/",
)


@pytest.fixture
def laboratory_at_work(make_image: Callable[..., CellImage], model_version: ModelVersion) -> list[str]:
    """Images in every state; returns the paths of their pages and of their case."""
    certain, doubtful, unsure, waiting, failed = (
        make_image(status, name=f"{place}-{'a-long-file-name-' * 4}.jpg")
        for place, status in enumerate(("classified", "classified", "classified", "queued", "failed"))
    )
    prediction_of(certain, model_version)
    prediction_of(doubtful, model_version, label="monocyte", confidence=0.6, conformal_set=["monocyte", "lymphocyte"])
    reason = "The model is not sure. It could be monocyte or lymphocyte. Please classify."
    doubt = {"conformal_set": ["monocyte", "lymphocyte"], "reason_code": "not_sure", "reason": reason}
    prediction_of(unsure, model_version, label="", abstained=True, confidence=0.4, **doubt)
    images = (certain, doubtful, unsure, waiting, failed)
    return [f"/cases/{certain.case_id}/", *(f"/images/{image.pk}/" for image in images)]


@pytest.fixture
def signed_case(
    make_image: Callable[..., CellImage], model_version: ModelVersion, reader: User, technologist: User
) -> list[str]:
    """A case whose report was signed, amended and signed again, and is being corrected; the paths of its pages."""
    images = [make_image("classified", name=f"{place}.jpg") for place in range(4)]
    for image, label in zip(images, ("lymphocyte", "neutrophil", "basophil", "erythroblast"), strict=True):
        prediction_of(image, model_version, label=label, suggestion=label, conformal_set=[label])
        services.review_image(actor=technologist, image=image, verdict="CONFIRMED")
    case = images[0].case
    services.release_report(actor=reader, case=case, password=PASSWORD, reason="few cells on the smear")
    services.amend_report(actor=reader, case=case, kind="amended", reason="a colleague looked again")
    services.review_image(actor=reader, image=images[1], verdict="CORRECTED", final_label="eosinophil")
    services.void_image(actor=reader, image=images[2], reason="from another patient")
    services.release_report(actor=reader, case=case, password=PASSWORD, reason="few cells", comment="Repeat in a week.")
    services.assign_case(actor=technologist, case=case, reader=reader)
    base = f"/cases/{case.pk}/"
    signed = [base, f"{base}reports/1/", f"{base}reports/2/", f"{base}amend/", f"{base}edit/", f"{base}assign/"]
    return [*signed, f"{base}void/", f"{base}release/", f"{base}trial/", f"/images/{images[1].pk}/"]


def faults_of(page: Page) -> list[str]:
    # Cards that are out of sight are not drawn, and axe can only judge what is.
    page.evaluate(
        "() => document.querySelectorAll('*').forEach((each) => { each.style.contentVisibility = 'visible'; })"
    )
    page.evaluate(AXE)
    faults: list[str] = page.evaluate(RUN_AXE, {"type": "tag", "values": RULES})
    across = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if across > 0:
        faults.append(f"scrolls sideways by {across} px")
    return [f"{page.url}: {fault}" for fault in faults]


def faults_in_both_themes(page: Page) -> list[str]:
    """A theme is colours and nothing else, so in the other one only what depends on them is looked at again."""
    faults = faults_of(page)
    page.evaluate(AT_ONCE)
    page.emulate_media(color_scheme="dark")
    in_dark = page.evaluate(RUN_AXE, {"type": "rule", "values": COLOUR_RULES})
    page.emulate_media(color_scheme="light")
    return [*faults, *(f"{page.url}, dark: {fault}" for fault in in_dark)]


def test_colours_that_only_the_dark_theme_makes_hard_to_read_are_found(visit: Visit) -> None:
    page = visit(None, "/about/")
    page.evaluate("() => { document.querySelector('main p').style.color = 'light-dark(black, #333)'; }")

    assert faults_of(page) == []
    assert "dark: color-contrast" in "".join(faults_in_both_themes(page))


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_accessible_and_fits(
    visit: Visit, technologist: User, laboratory_at_work: list[str], width: int
) -> None:
    faults = []
    page = visit(None, SIGNED_OUT[0], width=width)
    for path in SIGNED_OUT:
        page.goto(path)
        faults += faults_in_both_themes(page)
    page = visit(technologist, "/", width=width)
    for path in (*SIGNED_IN, *laboratory_at_work):
        page.goto(path)
        faults += faults_in_both_themes(page)
    assert faults == []


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark"), (2560, "light")])
def test_every_page_of_a_signed_case_is_accessible_and_fits(
    visit: Visit, reader: User, signed_case: list[str], width: int, theme: str
) -> None:
    faults = []
    page = visit(reader, "/cases/", width=width, theme=theme)
    for path in ("/cases/", "/notifications/", *signed_case):
        page.goto(path)
        faults += faults_of(page)
    assert faults == []


@pytest.mark.parametrize("who", ["auditor", "lab_admin"])
def test_people_who_review_nothing_read_the_same_pages(
    visit: Visit, who: str, signed_case: list[str], request: pytest.FixtureRequest
) -> None:
    page = visit(request.getfixturevalue(who), "/cases/")
    faults = faults_of(page)
    pages = ["/laboratory/", "/accounts/tokens/", "/batches/", *signed_case[:3]]
    for path in [*pages, "/webhooks/"] if who == "lab_admin" else pages:
        page.goto(path)
        faults += faults_of(page)
    assert faults == []


@pytest.mark.parametrize("who", ["auditor", "operator"])
def test_people_who_upload_nothing_find_their_way(visit: Visit, who: str, request: pytest.FixtureRequest) -> None:
    page = visit(request.getfixturevalue(who))
    expect(page.locator("form[data-upload]")).to_have_count(0)
    expect(page.get_by_role("link", name="Audit desk", exact=True)).to_be_visible()
    assert faults_of(page) == []
    page.get_by_role("link", name="Audit desk", exact=True).click()
    expect(page.locator("#site-name")).to_contain_text("HematoVision")


def test_the_panel_shows_class_confidence_and_what_cannot_be_ruled_out(
    visit: Visit, technologist: User, laboratory_at_work: list[str]
) -> None:
    _, certain, doubtful, unsure, waiting, failed = laboratory_at_work
    page = visit(technologist, certain)
    expect(page.locator(".verdict-class")).to_have_text("Lymphocyte")
    expect(page.locator(".confidence")).to_contain_text("92.0 %")
    page.goto(doubtful)
    expect(page.locator(".doubt")).to_contain_text("Lymphocyte")
    page.goto(unsure)
    expect(page.locator(".verdict-class")).to_contain_text("Unidentified")
    expect(page.locator(".finding")).to_contain_text("The model is not sure. It could be")
    page.goto(waiting)
    expect(page.locator(".verdict-class")).to_contain_text("Queued")
    page.goto(failed)
    expect(page.locator(".verdict")).to_contain_text("Classify it by hand")
    page.get_by_role("button", name="Queue again").click()
    expect(page.locator(".message")).to_contain_text("queued again")
    expect(page.locator(".verdict-class")).to_contain_text("Queued")


def test_what_is_no_cell_gets_no_class_anywhere(
    visit: Visit, technologist: User, make_image: Callable[..., CellImage], model_version: ModelVersion
) -> None:
    image = make_image("classified")
    sentence = "This does not look like the images the model was tested on (a test). No class is given."
    refused = {"label": "", "suggestion": "", "abstained": True, "reason_code": "not_a_cell", "reason": sentence}
    prediction_of(image, model_version, **refused, conformal_set=["monocyte", "lymphocyte"], heat_map=None)
    page = visit(technologist, "/images/")
    expect(page.locator(".card")).to_contain_text("Unidentified")
    expect(page.locator(".card")).not_to_contain_text("could be")
    page.goto(f"/images/{image.pk}/")
    expect(page.locator(".finding")).to_contain_text(sentence)
    expect(page.locator(".bars")).to_be_hidden()
    expect(page.locator(".viewer")).to_contain_text("No heat map: the model")


def test_the_heat_map_and_the_zoom_answer_to_buttons_and_keys(
    visit: Visit, technologist: User, laboratory_at_work: list[str]
) -> None:
    page = visit(technologist, laboratory_at_work[1])
    heat, button = page.locator("[data-heat]"), page.locator("[data-heat-toggle]")
    expect(heat).to_be_hidden()
    button.click()
    expect(heat).to_be_visible()
    expect(button).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("(map) => map.decode().then(() => map.naturalWidth > 0)", heat.element_handle())
    page.keyboard.press("h")
    expect(heat).to_be_hidden()
    page.keyboard.press("z")
    expect(page.locator(".zoomer[data-open]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".zoomer")).to_have_count(0)


def test_the_theme_can_be_chosen_and_is_remembered(visit: Visit, technologist: User) -> None:
    def ground() -> Any:
        return page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")

    page = visit(technologist)
    light = ground()
    switch = page.locator("[data-theme-switch]")
    switch.click()
    assert ground() == light
    switch.click()
    expect(switch).to_have_text("Dark")
    dark = ground()
    assert dark != light
    page.goto("/cases/")
    assert ground() == dark
    switch.click()
    expect(switch).to_have_text("Auto")
    assert ground() == light


def test_pages_keep_their_place_while_pictures_load(
    visit: Visit, technologist: User, laboratory_at_work: list[str]
) -> None:
    page = visit(technologist, "/")
    for path in ("/", *laboratory_at_work[:2], "/images/"):
        page.goto(path, wait_until="networkidle")
        shift = page.evaluate(
            """() => new Promise((done) => {
              let sum = 0;
              new PerformanceObserver((list) => {
                for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
              }).observe({ type: "layout-shift", buffered: true });
              setTimeout(() => done(sum), 100);
            })"""
        )
        assert shift < 0.02, path

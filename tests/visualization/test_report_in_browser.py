"""The page in a real browser; skipped where there is none."""

import re
import shutil
from dataclasses import replace
from datetime import datetime

import pytest
import torch

from gasmcast import write_report
from gasmcast.explanation import DIRECTIONS, LAYERS
from visualization.inspections import made_up, seen_by_small_model
from visualization.test_report import NASTY

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HEADS = (None, 0, 3)
CONTRASTS = """() => {
    // Of all text: its colour against what lies behind it, as WCAG 2.1 counts.
    const ink = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const over = (colors) => {
        for (const color of colors) { ink.fillStyle = color; ink.fillRect(0, 0, 1, 1); }
        const [r, g, b] = [...ink.getImageData(0, 0, 1, 1).data].map((value) =>
            value <= 10 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    for (const e of document.querySelectorAll('body *')) {
        const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!words || !e.checkVisibility() || e.matches(':disabled')) continue;
        const behind = ['white'];
        for (let one = e; one; one = one.parentElement) {
            const style = getComputedStyle(one);
            const bar = /color\\(srgb [^)]*\\)/.exec(style.backgroundImage) ?? [];
            behind.splice(1, 0, style.backgroundColor, ...bar);
        }
        const [low, high] =
            [over(behind), over([...behind, getComputedStyle(e).color])].sort((a, b) => a - b);
        found.push([(high + 0.05) / (low + 0.05), e.className || e.localName, e.textContent]);
    }
    return found;
}"""


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    with sync_api.sync_playwright() as playwright:
        # As root, Chromium's sandbox does not start.
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:  # such as a script that says where to get one
            pytest.skip(f"{path} does not start: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def seen():
    first, second = seen_by_small_model(clips=2, class_names=["lift", "drop", NASTY])
    times = torch.arange(16.0, dtype=torch.float64) / 50
    return [replace(first, pts_seconds=times), second]


@pytest.fixture(scope="module")
def one(seen, tmp_path_factory):
    return write_report(None, seen[0], tmp_path_factory.mktemp("one") / "report.html")


@pytest.fixture(scope="module")
def two(seen, tmp_path_factory):
    best, other = int(seen[0].logits.argmax()), (int(seen[1].logits.argmax()) + 1) % 3
    return write_report(
        None,
        seen,
        tmp_path_factory.mktemp("two") / "report.html",
        labels=[best, other],
        names=["first", NASTY],
    )


@pytest.fixture
def visit(browser):
    """Opens a page; afterwards it must have fetched nothing and complained of nothing."""
    wrong, contexts = [], []

    def visit(path, state="", **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 1000}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("data:", f"file://{path}")) or wrong.append(request.url)
            ),
        )
        page.goto(f"file://{path}#{state}")
        page.wrong = wrong
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def go(page, state):
    """To another state of a page that is open; the pointer is off it."""
    page.mouse.move(2, 2)
    page.evaluate(
        """state => new Promise((done) => {
            addEventListener('hashchange', done, {once: true});
            location.hash = state;
        })""",
        state,
    )


def opens(page, *names):
    """Waits until these clips are shown: a change of the address takes its time."""
    page.wait_for_function(
        """names => {
            const shown = [...document.querySelectorAll('h2')].map(e => e.textContent);
            return JSON.stringify(shown) === JSON.stringify(names);
        }""",
        arg=list(names),
    )


def patch(page, index):
    return page.locator(".patch").nth(index)


def segment(page, index):
    return page.locator(".segment").nth(index)


def edges(page, kind):
    """Edges drawn, (source, target) -> attention."""
    holder = {"patch": ".stage .edge", "segment": ".arcs .edge"}[kind]
    found = page.locator(holder).evaluate_all(
        "all => all.map(e => [+e.dataset.source, +e.dataset.target, +e.dataset.value])"
    )
    drawn = {(source, target): value for source, target, value in found}
    assert len(drawn) == len(found)
    return drawn


def rows(page):
    """The table: index -> its cells."""
    found = page.locator("[data-part=rows] tr").evaluate_all(
        "all => all.map(r => [+r.dataset.index, [...r.cells].map(cell => cell.textContent)])"
    )
    return dict(found)


def shown(text):
    """A number as the page writes it, which has three digits."""
    return float(text.replace("−", "-"))


def three_digits(value):
    return pytest.approx(float(value), rel=5.1e-3, abs=1e-12)


def head_key(head):
    return "mean" if head is None else str(head)


@pytest.mark.parametrize("kind", ["patch", "segment"])
@pytest.mark.parametrize("side", ["in", "out"])
def test_hovering_shows_exactly_the_edges_of_the_graph(kind, side, seen, one, visit):
    page = visit(one)
    for head in HEADS:
        go(page, f"edges={side}&head={head_key(head)}&view=graph")
        stream = {"patch": "spatial", "segment": "temporal"}[kind]
        graph, attention = seen[0].graph(stream), seen[0].graph_attention(stream, head)
        similarity = graph.edge_attr[:, -1]
        for node in (0, 5, graph.num_nodes - 1):
            (patch if kind == "patch" else segment)(page, node).hover()
            own = graph.edge_index[1 if side == "in" else 0] == node
            expected = {
                (int(graph.edge_index[0, e]), int(graph.edge_index[1, e])): e
                for e in own.nonzero().flatten().tolist()
            }
            others = {pair: e for pair, e in expected.items() if pair[0] != pair[1]}
            drawn = edges(page, kind)
            assert drawn.keys() == others.keys()
            for pair, value in drawn.items():
                assert value == pytest.approx(float(attention[others[pair]]), rel=1e-6)
            table = rows(page)
            assert table.keys() == {pair[0 if side == "in" else 1] for pair in expected}
            for pair, e in expected.items():
                name, rule, alike, attended = table[pair[0 if side == "in" else 1]]
                assert rule == rule_name(int(graph.edge_rule[e]))
                assert shown(alike) == three_digits(similarity[e])
                assert shown(attended) == three_digits(attention[e])
                assert name.startswith(str(pair[0 if side == "in" else 1]))
        page.mouse.move(2, 2)  # off again: of each node its strongest
        targets = [target for _, target in edges(page, kind)]
        assert sorted(targets) == sorted(set(targets))


def rule_name(bits):
    names = {1: "self-loop", 2: "adjacent", 4: "similar", 8: "window"}
    return " + ".join(name for bit, name in names.items() if bits & bit)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_cross_attention_is_that_of_the_tensors(layer, direction, seen, one, visit):
    page = visit(one)
    for head in (None, 2):
        go(page, f"view=cross&layer={layer}&direction={direction}&head={head_key(head)}")
        weights = seen[0].cross_attention(layer, direction, head)  # rows ask
        by_segment = weights if direction == "motion_to_semantic" else weights.t()
        mean = weights.mean(dim=0)
        assert {k: shown(cells[-1]) for k, cells in rows(page).items()} == {
            k: three_digits(value) for k, value in enumerate(mean)
        }
        for index in (0, 3, 7):
            segment(page, index).hover()
            found = {k: shown(cells[-1]) for k, cells in rows(page).items()}
            assert found == {k: three_digits(value) for k, value in enumerate(by_segment[index])}
            opacities = page.locator(".patch").evaluate_all(
                "all => all.map(p => +p.getAttribute('fill-opacity'))"
            )
            assert opacities.index(max(opacities)) == int(by_segment[index].argmax())
        for index in (0, 9, 15):
            patch(page, index).hover()
            found = {k: shown(cells[-1]) for k, cells in rows(page).items()}
            assert found == {k: three_digits(value) for k, value in enumerate(by_segment[:, index])}
            labels = page.locator(".segment .number").all_text_contents()
            assert list(map(shown, labels)) == [
                three_digits(value) for value in by_segment[:, index]
            ]


def test_evidence_is_that_of_the_tensors(seen, one, visit):
    page = visit(one)
    for label, _ in seen[0].top():
        page.locator(f".classes [data-label='{label}']").click()
        patches, segments, bias = seen[0].evidence(label)
        page.locator("h1").hover()
        sums = dict(
            page.locator("[data-part=rows] tr").evaluate_all(
                "all => all.map(r => [...r.cells].map(cell => cell.textContent))"
            )
        )
        assert {key: shown(text) for key, text in sums.items()} == {
            "patches": three_digits(patches.sum()),
            "segments": three_digits(segments.sum()),
            "bias": three_digits(bias),
            "logit": three_digits(seen[0].logits[label]),
        }
        values = [text.rpartition(": ")[2] for text in names_of(page, ".patch")]
        assert list(map(shown, values)) == [three_digits(value) for value in patches]
        values = page.locator(".segment .number").all_text_contents()
        assert list(map(shown, values)) == [three_digits(value) for value in segments]
    patch(page, 6).hover()
    cells = page.locator("[data-part=rows] td:last-child").all_text_contents()
    expected = [seen[0].patch_evidence[label, 6] for label, _ in seen[0].top()]
    assert list(map(shown, cells)) == [three_digits(value) for value in expected]


def names_of(page, selector):
    return page.locator(selector).evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")


def test_the_threshold_hides_what_lies_below(seen, one, visit):
    page = visit(one, "chosen=patch5")
    graph, attention = seen[0].spatial, seen[0].graph_attention("spatial")
    slider = page.locator("[name=threshold]")
    slider.evaluate("s => { s.value = 60; s.dispatchEvent(new Event('input', {bubbles: true})); }")
    entering = graph.edge_index[1] == 5
    cut = 0.6 * float(attention[entering].max())
    left = entering & (attention >= cut)
    assert 0 < int(left.sum()) < int(entering.sum())
    assert rows(page).keys() == set(graph.edge_index[0, left].tolist())
    assert edges(page, "patch").keys() == {
        (int(s), int(t)) for s, t in graph.edge_index[:, left].t() if s != t
    }
    assert shown(page.locator("#cut").text_content().split(" · ")[0]) == three_digits(cut)


def test_predictions_are_shown(seen, one, visit):
    page = visit(one)
    lines = page.locator(".classes button").all_inner_texts()
    for line, (_, probability) in zip(lines, seen[0].top(), strict=True):
        assert f"{probability:.1%}".replace("%", " %") in line.replace("\n", " ")
    assert NASTY in page.locator(".classes").inner_text()  # as text
    assert page.locator("img[src=x]").count() == 0


def test_by_keyboard_alone(seen, one, visit):
    page = visit(one)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.patch')"):
            break
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")  # patch 5 of 4 x 4
    entering = seen[0].spatial.edge_index[:, seen[0].spatial.edge_index[1] == 5]
    expected = {(int(s), 5) for s in entering[0] if s != 5}
    assert edges(page, "patch").keys() == expected
    assert page.locator("[data-part=title]").text_content() == "Patch 5 (row 1, column 1)"
    page.keyboard.press("Alt+ArrowRight")  # the browser's own
    assert page.locator("[data-part=title]").text_content() == "Patch 5 (row 1, column 1)"
    assert page.evaluate("getComputedStyle(document.activeElement).stroke") == "rgb(255, 255, 255)"
    page.keyboard.press("Enter")  # kept, also when the focus goes on
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.part") == "scrub"
    assert edges(page, "patch").keys() == expected
    page.keyboard.press("End")
    assert page.locator("[data-part=time]").text_content().endswith("frame 15 of 0 to 15")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("[data-part=title]").text_content() == "Segment 1"
    page.keyboard.press("Escape")
    assert page.locator("[data-part=title]").text_content() == "Whole clip"
    page.locator("[name=view]").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("[data-part=caption]").text_content().startswith("Cross-attention, action")
    # every element that takes the focus shows it
    page.keyboard.press("Tab")
    assert (
        page.evaluate("getComputedStyle(document.activeElement.nextElementSibling).outlineStyle")
        == "solid"
    )


def test_by_finger_on_a_phone(seen, one, visit):
    page = visit(one, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    patch(page, 10).tap()
    drawn = edges(page, "patch")
    assert drawn
    assert {target for _, target in drawn} == {10}
    segment(page, 2).tap()
    assert {target for _, target in edges(page, "segment")} == {2}
    assert edges(page, "patch") == {}
    segment(page, 2).tap()
    assert page.locator("[data-part=title]").text_content() == "Whole clip"
    heights = page.locator("main button, .segment, .segmented span").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().height)"
    )
    assert all(height == 0 or height >= 24 for height in heights)  # WCAG 2.2, target size


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read(scheme, two, visit):
    states = "", "clip=0+1&chosen=patch5", "clip=0&view=evidence&class=1"
    kinds = set()
    for state in states:
        page = visit(two, state, color_scheme=scheme)
        found = page.evaluate(CONTRASTS)
        assert [one for one in found if one[0] < 4.5] == []  # WCAG 2.1, AA
        kinds |= {kind for _, kind, _ in found}
    assert kinds >= {"h1", "td", "th", "note", "caption", "right", "wrong", "tag", "name", "number"}
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightest = int(re.findall(r"\d+", paper)[0])
    assert lightest > 240 if scheme == "light" else lightest < 30


def test_what_a_screen_reader_is_told(two, visit):
    page = visit(two)
    boxes = page.get_by_role("checkbox", name="mark to compare: first", exact=True)
    assert boxes.count() == 1
    page = visit(two, "clip=0&threshold=50")
    slider = page.get_by_role("slider", name="Hide below", exact=True)
    assert re.fullmatch(r"50 %: \S+ · \S+", slider.get_attribute("aria-valuetext"))
    assert page.get_by_role("slider", name="Frame", exact=True).count() == 1
    options = page.get_by_role("listbox", name="Patches").get_by_role("option")
    assert options.count() == 16
    # Read out by itself is only what the values are, and only when that changes.
    live = "[aria-live], [role=status], [role=alert], output"
    spoken = page.locator(live).filter(visible=True)
    assert spoken.evaluate_all("all => all.map(e => e.dataset.part)") == ["caption"]
    page.evaluate(
        """() => new MutationObserver((all) => {
            window.spoken = (window.spoken ?? 0) + all.length;
        }).observe(document.querySelector('[data-part=caption]'), {childList: true})"""
    )
    for index in (3, 4, 5):
        patch(page, index).hover()
    assert page.evaluate("window.spoken") == 1


def test_index_opens_compares_and_goes_back(seen, two, visit):
    page = visit(two)
    cards = page.locator(".card")
    assert cards.count() == 2
    summary = page.locator("#summary").text_content()
    assert summary == "2 clips, 1 of 2 right, one view of each"
    assert "✓ right" in cards.nth(0).inner_text()
    assert "✗ wrong" in cards.nth(1).inner_text()
    assert "(true: " in cards.nth(1).inner_text()
    assert page.locator("#compare").is_disabled()
    cards.nth(0).click()
    opens(page, "first")
    page.locator("[name=view][value=cross]").check(force=True)
    page.locator("#to-index").click()
    cards.nth(1).click()
    opens(page, NASTY)
    assert page.locator("[name=view][value=cross]").is_checked()  # as for the clip before
    page.locator("[name=view][value=graph]").check(force=True)
    page.locator("#to-index").click()
    page.locator("#index").wait_for()
    assert page.evaluate("document.activeElement.innerText").startswith(NASTY[:9])
    for box in page.locator("#cards input").all():
        box.check()
    page.locator("#compare").click()
    opens(page, "first", NASTY)
    page.locator(".viewer").nth(0).locator(".patch").nth(3).hover()
    for number in (0, 1):  # the same patch in both, each with its own graph
        graph = seen[number].spatial
        found = (
            page.locator(".viewer")
            .nth(number)
            .locator(".stage .edge")
            .evaluate_all("all => all.map(e => [+e.dataset.source, +e.dataset.target])")
        )
        assert {tuple(pair) for pair in found} == {
            (int(s), int(t)) for s, t in graph.edge_index.t() if t == 3 and s != 3
        }
    highs = page.locator("[data-part=high]").all_text_contents()
    assert highs[0] == highs[1]  # one scale
    page.go_back()
    page.locator("#index").wait_for()


def test_a_pointer_that_rests_has_not_chosen(two, visit):
    page = visit(two)

    def rests_on_a_patch_of(*names):
        opens(page, *names)
        page.wait_for_function("document.querySelector('.patch:hover')")  # the browser knows it
        assert set(page.locator("[data-part=title]").all_text_contents()) == {"Whole clip"}
        assert page.locator(".ring").filter(visible=True).count() == 0

    card = page.locator(".card").first
    card.click(position={"x": 60, "y": card.bounding_box()["height"] - 20})
    rests_on_a_patch_of("first")
    page.mouse.move(2, 2)
    patch(page, 5).hover()
    assert page.locator("[data-part=title]").text_content().startswith("Patch 5 ")
    page.locator("#to-index").click()
    for box in page.locator("#cards input").all():
        box.check()
    page.locator("#cards").evaluate("cards => { cards.style.minHeight = '500px'; }")
    button = page.locator("#compare")
    button.click()
    rests_on_a_patch_of("first", NASTY)
    x, y = page.evaluate(
        """() => {
            const {x, y, width, height} =
                document.querySelector('.patch:hover').getBoundingClientRect();
            return [x + width / 2, y + height / 2];
        }"""
    )
    page.mouse.move(x, y)  # within the patch that it was over all the time
    titles = page.locator("[data-part=title]").all_text_contents()
    assert all(title.startswith("Patch ") for title in titles)
    for _ in "to keep it", "to let it go":
        page.mouse.click(x, y)
    page.mouse.move(x + 1, y)  # a hand is never quite still
    assert set(page.locator("[data-part=title]").all_text_contents()) == {"Whole clip"}


def test_the_frames_of_the_patches_are_marked(seen, one, two, visit, tmp_path):
    assert seen[0].patch_frames == (4, 12)
    page = visit(one)
    assert page.locator("[data-part=time]").text_content().endswith("frame 12 of 0 to 15")
    words = page.locator("[data-part=sources]")
    assert words.text_content() == "The patches come from frames 4 and 12"
    slider = page.get_by_role("slider", name="Frame", exact=True)
    source = "Frame 12 of 0 to 15, the patches come from it"
    assert slider.get_attribute("aria-valuetext") == source
    box = slider.bounding_box()
    slider.evaluate(
        """slider => {
            slider.step = 'any'; // where exactly, which is not for the page to know
            document.addEventListener('input', (event) => event.stopPropagation(), {capture: true});
        }"""
    )
    for tick, frame in zip(page.locator(".ticks i").all(), seen[0].patch_frames, strict=True):
        mark = tick.bounding_box()
        page.mouse.click(mark["x"] + mark["width"] / 2, box["y"] + box["height"] / 2)
        assert float(slider.input_value()) == pytest.approx(frame, abs=0.05)
        assert mark["y"] >= box["y"] + box["height"]  # the thumb does not hide it
    page = visit(one)
    slider = page.get_by_role("slider", name="Frame", exact=True)
    slider.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "Frame 11 of 0 to 15"
    frames = page.evaluate("data.clips[0].frames")
    assert visit(two).locator(".card img").first.get_attribute("src") == frames[12]
    for known, text in ((None, None), ((7,), "frame 7"), (tuple(range(16)), "all frames")):
        path = write_report(None, replace(seen[0], patch_frames=known), tmp_path / "report.html")
        page = visit(path)
        assert page.locator("[data-part=sources]").is_visible() == (text is not None)
        assert page.locator(".ticks i").count() == len(known or ())
        if text:
            text = f"The patches come from {text}"
            assert page.locator("[data-part=sources]").text_content() == text


@pytest.mark.parametrize(("width", "state"), [(1200, "clip=0"), (830, "clip=0+1"), (360, "clip=0")])
def test_words_of_the_colour_bar_stand_apart(width, state, two, visit):
    page = visit(two, f"{state}&view=cross", viewport={"width": width, "height": 900})
    for share in (0.001, 0.03, 0.2, 0.5, 0.76, 0.97, 0.9999, 1):
        low, mean, high, mark, ramp = page.evaluate(
            """share => {
                const {parts} = viewers[0];
                viewers[0].drawScale([1], {low: 0.0205 * share, high: 0.0205, signed: false});
                return ['low', 'mean', 'high', 'mark', 'ramp'].map((part) => {
                    const {left, right} = parts[part].getBoundingClientRect();
                    return [left, right];
                });
            }""",
            share,
        )
        assert page.locator("[data-part=mean]").first.text_content().startswith("mean ")
        assert mean[0] - low[1] >= 6
        assert high[0] - mean[1] >= 6
        assert high[1] == pytest.approx(ramp[1], abs=0.5)
        assert mark[0] == pytest.approx(ramp[0] + share * (ramp[1] - ramp[0]), abs=0.5)


def test_a_segment_brings_its_own_frame(seen, visit, tmp_path):
    short = replace(seen[1], frames=seen[1].frames[:8], patch_frames=(2, 6))
    path = write_report(None, [seen[0], short], tmp_path / "report.html")
    page = visit(path, "clip=0+1")
    page.locator(".viewer").nth(1).locator(".segment").nth(3).click()
    times = page.locator("[data-part=time]").all_text_contents()
    assert [time.rpartition("· ")[2] for time in times] == [
        "frame 3 of 0 to 15",
        "frame 3 of 0 to 7",
    ]


def test_arcs_and_table_leave_out_the_same(visit, tmp_path):
    seen = made_up(grid=(2, 3), segments=5, heads=2, classes=2, frames=(5, 32, 48), degree=2)
    source, target = seen.temporal.edge_index
    own = (source == target) & (target == 2)
    seen.temporal.attention[own] = 2.0  # all the others are below 1
    page = visit(write_report(None, seen, tmp_path / "report.html"), "chosen=segment2&threshold=60")
    assert rows(page).keys() == {2}
    assert edges(page, "segment") == {}


def test_the_smallest_clip(visit, tmp_path):
    seen = made_up(grid=(1, 1), segments=1, heads=1, classes=1, frames=(1, 32, 64), degree=0)
    del seen.spatial.edge_rule
    path = write_report(None, seen, tmp_path / "report.html", labels=0)
    for view in ("graph", "cross", "evidence"):
        page = visit(path, f"view={view}")
        patch(page, 0).hover()
        segment(page, 0).click()
        assert page.locator("[data-part=title]").text_content() == "Segment 0"
    assert "100.0 %" in page.locator(".classes").inner_text()
    assert page.locator(".segment img").bounding_box()["width"] <= 140


def test_edges_without_a_rule_are_grey(seen, visit, tmp_path):
    graph = seen[0].spatial.clone()
    del graph.edge_rule
    path = write_report(None, replace(seen[0], spatial=graph), tmp_path / "report.html")
    strokes = visit(path, "chosen=patch5").locator(".stage .edge path:not(.casing)")
    assert {path.get_attribute("stroke") for path in strokes.all()} == {"#555555"}


def test_numbers_have_three_digits(one, visit):
    page = visit(one)
    for value, text in {
        "0": "0",
        "0.98": "0.980",
        "-1.5e-7": "−1.50e−7",
        "999.7": "1000",
        "-12345.6": "−12346",
    }.items():
        assert page.evaluate(f"number({value})") == text


def test_the_address_holds_the_state(one, visit):
    page = visit(one)
    page.locator("[name=view][value=cross]").check(force=True)
    page.locator("[name=layer][value=basic]").check(force=True)
    page.locator("[name=head]").select_option("2")
    segment(page, 4).click()
    page.mouse.move(2, 2)
    page.wait_for_url("**chosen=segment4")
    address = page.url.partition("#")[2]
    assert set(address.split("&")) >= {"view=cross", "layer=basic", "head=2", "chosen=segment4"}
    again = visit(one, address)
    assert rows(again) == rows(page)
    for odd in (
        "clip=9",
        "clip=0+0+0&class=%3Cimg%3E",
        "head=99&frame=1e9&chosen=patch999",
        "view=%22&layer=__proto__&__proto__=1&constructor",
        "threshold=-1&edges=<img src=x onerror=alert(1)>",
        "&&=&%",
    ):
        go(again, odd)
        assert again.locator(".viewer").count() == 1
        assert again.locator("[name=view][value=graph]").is_checked()


def test_playing_goes_at_the_pace_of_the_clip(one, visit):
    page = visit(one, "frame=8")
    page.clock.install(time=datetime(2026, 1, 1))
    page.clock.pause_at(datetime(2026, 1, 2))  # time goes on only where the test says so
    time = page.locator("[data-part=time]")
    assert time.text_content() == "0.16 s · frame 8 of 0 to 15"
    page.clock.run_for(1000)
    assert time.text_content() == "0.16 s · frame 8 of 0 to 15"  # not by itself
    page.get_by_role("button", name="Play", exact=True).click()
    page.clock.run_for(101)
    assert time.text_content() == "0.26 s · frame 13 of 0 to 15"  # 50 a second
    page.clock.run_for(170)  # to the last, which stays for an eighth of a second
    assert time.text_content() == "0.00 s · frame 0 of 0 to 15"  # from the beginning again
    page.get_by_role("button", name="Pause", exact=True).click()
    page.clock.run_for(1000)
    assert time.text_content() == "0.00 s · frame 0 of 0 to 15"
    page.wait_for_url("**frame=0**")


def test_a_short_video_plays_no_slower(seen, visit, tmp_path):
    times = torch.tensor([0.0, 0.1]).double().repeat_interleave(8)  # of two frames, repeated
    path = write_report(None, replace(seen[0], pts_seconds=times), tmp_path / "report.html")
    page = visit(path, "frame=0")
    page.clock.install(time=datetime(2026, 1, 1))
    page.clock.pause_at(datetime(2026, 1, 2))
    time = page.locator("[data-part=time]")
    page.get_by_role("button", name="Play", exact=True).click()
    page.clock.run_for(85)
    assert time.text_content().startswith("0.00 s · ")
    page.clock.run_for(25)
    assert time.text_content() == "0.10 s · frame 8 of 0 to 15"


def test_a_video_of_one_frame_shows_no_times(seen, visit, tmp_path):
    still = replace(seen[0], pts_seconds=torch.zeros(16).double())
    page = visit(write_report(None, still, tmp_path / "report.html"))
    assert page.locator("[data-part=time]").text_content() == "frame 12 of 0 to 15"


def test_late_fusion_has_no_cross_attention(visit, tmp_path):
    (seen,) = seen_by_small_model(fusion="late")
    page = visit(write_report(None, seen, tmp_path / "report.html"), "view=cross")
    assert page.locator("[name=view][value=cross]").is_disabled()
    assert page.locator("[name=view][value=graph]").is_checked()


def test_the_browser_refuses_what_the_page_did_not_bring(one, visit):
    page = visit(one)
    page.evaluate(
        """async () => {
            const script = document.createElement('script');
            script.textContent = 'window.injected = true';
            document.body.append(script);
            try { await fetch('http://127.0.0.1:9/'); window.fetched = true } catch {}
        }"""
    )
    assert page.evaluate("[window.injected, window.fetched]") == [None, None]
    assert len(page.wrong) >= 2
    assert all("Content Security Policy" in text or "127.0.0.1" in text for text in page.wrong)
    page.wrong.clear()

"""The page on which labels are reviewed: what it holds, and what a browser does with it."""

import csv
import html
import io
import json
import re
import shutil
import subprocess
import tempfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from sklearn_taskres import load_image_folder, make_taskres_pipeline
from sklearn_taskres.inspection import label_suspects, review

pytestmark = pytest.mark.model

NAMES = ["zero", "one", "two & <b>", 'th"ree, or not']
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten digits of each of four classes, one zero and one one swapped, and twelve unlabelled."""
    folder, digits = tmp_path_factory.mktemp("photos"), load_digits()
    for code, name in enumerate(NAMES):
        for path in (folder / "labelled" / name, folder / "pool"):
            path.mkdir(parents=True, exist_ok=True)
        for i, row in enumerate(np.flatnonzero(digits.target == code)[:13]):
            picture = Image.fromarray((15 * digits.images[row]).astype(np.uint8)).resize((64, 64))
            to = f"labelled/{name}/{i}.png" if i < 10 else f"pool/{code}-{i}.png"
            picture.save(folder / to)
    one, zero = (folder / "labelled" / name / "0.png" for name in ("one", "zero"))
    one.rename(folder / "x.png")
    zero.rename(one)
    (folder / "x.png").rename(zero)
    return folder


@pytest.fixture(scope="module")
def written(folder):
    """The page, the labelled paths and their labels."""
    paths, y = load_image_folder(folder / "labelled")
    pool = sorted(str(path) for path in (folder / "pool").iterdir())
    names = dict(zip(NAMES, ("zero", "one", "two", "three"), strict=True))
    model = make_taskres_pipeline("glyph-clip", class_names=names, random_state=0).fit(paths, y)
    page = review(model, paths, y, pool=pool, out=folder / "review.html", n_suspects=6, n_next=5)
    return model, page, paths, y


def content_of(page):
    """The data that the page holds."""
    return json.loads(re.search(r"const data = (.*);\n", page.read_text("utf-8"))[1])


def test_the_page_holds_what_the_functions_say(written):
    """Suspects are those of `label_suspects`; images are there once, as data."""
    model, page, paths, y = written
    content = content_of(page)
    suspects = label_suspects(model, paths, y)
    images = content["images"]
    found = [images[suspect["image"]]["path"] for suspect in content["suspects"]]
    assert found == paths[suspects.indices[:6]].tolist()
    assert {path.rpartition("labelled/")[2] for path in found[:2]} == {"one/0.png", "zero/0.png"}
    assert content["classes"] == sorted(NAMES)
    assert sum(map(sum, content["confusion"])) == content["judged"] == 40
    assert len({image["path"] for image in images}) == len(images)
    assert all(image["thumbnail"].startswith("data:image/jpeg;base64,") for image in images)
    assert len(content["next"]) == 5
    for image in content["next"]:
        assert "/pool/" in images[image["image"]]["path"]
        assert image["best"][0][1] >= image["best"][1][1]


def test_names_are_no_markup(written):
    """Class names and paths can't end the script, and nothing is loaded from elsewhere."""
    _, page, *_ = written
    text = page.read_text("utf-8")
    assert "<b>" not in text.partition("const data")[2].partition("\n")[0]
    assert not re.search(r"(src|href)=\"?http|url\(http", text)
    assert "default-src 'none'" in text


def test_a_page_without_suspects_or_suggestions(written, tmp_path):
    """0 of both leaves the overview."""
    model, page, paths, y = written
    pool = sorted(str(path) for path in (page.parent / "pool").iterdir())
    bare = review(model, paths, y, pool=pool, out=tmp_path / "bare.html", n_suspects=0, n_next=0)
    content = content_of(bare)
    assert content["suspects"] == content["next"] == content["images"] == []
    assert content["accuracy"] == content_of(page)["accuracy"]


def test_paths_are_asked_for(written, tmp_path):
    """Corrections name files, so images in memory are refused."""
    model, _, _, y = written
    with pytest.raises(ValueError, match=r"paths must be paths of image files.*Got ndarray"):
        review(model, np.zeros((len(y), 8, 8)), y, out=tmp_path / "review.html")
    assert not (tmp_path / "review.html").exists()


CLICKS = """
const said = {};
function click(card, text) {
  const buttons = [...card.querySelectorAll("button")];
  buttons.find((button) => button.textContent.startsWith(text)).click();
}
const [first, second, third] = document.querySelectorAll("#suspects .card");
const [fourth] = document.querySelectorAll("#next .card");
click(first, data.classes[data.suspects[0].suggested]);
click(second, "leave out");
click(third, "leave out");
click(third, "leave out");  // taken back
const list = fourth.querySelector("select");
list.value = 0;
list.dispatchEvent(new Event("change"));
said.count = document.getElementById("count").value;
said.pressed = [...first.querySelectorAll("[aria-pressed=true]")].map((b) => b.textContent);
said.changed = document.querySelectorAll(".card.changed").length;
URL.createObjectURL = (blob) => { said.type = blob.type; return "data:,"; };
document.getElementById("save").click();
said.csv = csv();
said.overflow = document.documentElement.scrollWidth - innerWidth;
said.width = innerWidth;
said.focusable = [...document.querySelectorAll(".choices *")]
  .filter((e) => e.tagName === "BUTTON" || e.tagName === "SELECT").every((e) => e.tabIndex === 0);
said.named = [...document.querySelectorAll("select, img")]
  .every((e) => e.alt !== undefined || e.getAttribute("aria-label"));
said.background = getComputedStyle(document.body).backgroundColor;
document.body.replaceChildren(Object.assign(document.createElement("pre"),
  { id: "said", textContent: JSON.stringify(said) }));
"""


def in_browser(page, width, *options):
    """What the page's clicks say in a real browser, at a width."""
    clicked = page.with_name(f"clicked-{width}.html")
    text = page.read_text("utf-8").replace("</body>", f"<script>{CLICKS}</script></body>")
    clicked.write_text(text, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    profile = f"--user-data-dir={tempfile.mkdtemp(dir=page.parent)}"  # two at once need two
    done = subprocess.run(  # noqa: S603 (a page of our own)
        [*command, profile, *options, "--dump-dom", clicked.as_uri()],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="said">(.*)</pre>', done.stdout.decode("utf-8"))
    return json.loads(html.unescape(found[1]))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 500])
def test_clicks_become_corrections(written, folder, width):
    """Labels are chosen, taken back and saved; `load_image_folder` reads what was saved."""
    _, page, paths, y = written
    said = in_browser(page, width)
    content = content_of(page)
    assert said["count"] == "3 corrections"
    assert said["changed"] == 3
    assert said["type"] == "text/csv"
    assert said["width"] == width
    assert said["overflow"] <= 0
    assert said["focusable"]
    assert said["named"]
    first, second = (content["suspects"][i] for i in (0, 1))
    assert said["pressed"] == [content["classes"][first["suggested"]]]
    rows = list(csv.DictReader(io.StringIO(said["csv"])))
    places = [first["image"], second["image"], content["next"][0]["image"]]
    assert [row["image"] for row in rows] == [content["images"][i]["path"] for i in places]
    labels = [content["classes"][first["suggested"]], "", content["classes"][0]]
    assert [row["label"] for row in rows] == labels
    corrections = folder / f"corrections-{width}.csv"
    corrections.write_text(said["csv"], encoding="utf-8")
    corrected = dict(
        zip(*load_image_folder(folder / "labelled", corrections=corrections), strict=True)
    )
    expected = dict(zip(paths.tolist(), y.tolist(), strict=True))
    expected[rows[0]["image"]] = labels[0]
    del expected[rows[1]["image"]]
    expected[rows[2]["image"]] = labels[2]
    assert corrected == expected


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_dark_and_light(written):
    """The page follows what the reader prefers."""
    _, page, *_ = written
    light = in_browser(page, 1280)["background"]
    dark = in_browser(page, 1280, "--blink-settings=preferredColorScheme=0")["background"]
    assert (light, dark) == ("rgb(250, 250, 248)", "rgb(23, 24, 22)")

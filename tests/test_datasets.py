"""Folders of images and few-shot samples."""

from pathlib import Path

import numpy as np
import pytest
from fuzz_images import FILES
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sklearn_taskres import load_digit_images, load_image_folder, sample_few_shot
from sklearn_taskres._clip.files import FORMATS, PREFIX_BYTES, looks_like_image


@st.composite
def labels(draw):
    """Up to four classes of 1 to 30 images, in any order."""
    counts = draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    y = np.repeat(list("abcd")[: len(counts)], counts)
    return y[np.random.default_rng(draw(st.integers(0, 99))).permutation(len(y))].tolist()


@settings(deadline=None)
@given(y=labels(), k=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_few_shot_protocol(y, k, seed):
    """k a class without replacement, all if there are fewer, validation from what is left."""
    y = np.array(y)
    train, validation = sample_few_shot(y, k, validation=True, random_state=seed)
    drawn = np.concatenate([train, validation])
    assert len(set(drawn.tolist())) == len(drawn)
    for label in np.unique(y):
        n = np.sum(y == label)
        assert np.sum(y[train] == label) == min(k, n)
        assert np.sum(y[validation] == label) == min(k, 4, max(0, n - k))


@settings(deadline=None)
@given(y=labels(), k=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_few_shot_samples_are_seeded(y, k, seed):
    """The same seed draws the same images, with or without a validation set."""
    alone = sample_few_shot(y, k, random_state=seed)
    with_validation, _ = sample_few_shot(y, k, validation=True, random_state=seed)
    np.testing.assert_array_equal(alone, with_validation)


@settings(deadline=None)
@given(y=labels(), k=st.integers(1, 19), seed=st.integers(0, 2**31))
def test_more_shots_extend_fewer(y, k, seed):
    """The draw of k images per class lies within that of k + 1, as curves over shots want it."""
    few, more = (set(sample_few_shot(y, n, random_state=seed).tolist()) for n in (k, k + 1))
    assert few <= more


@settings(deadline=None)
@given(y=labels(), k=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_few_shot_samples_are_sorted_by_class(y, k, seed):
    """Indices come class by class in the order of the sorted labels, of y as of any encoding."""
    drawn = sample_few_shot(y, k, random_state=seed)
    labels_drawn = np.array(y)[drawn].tolist()
    assert labels_drawn == sorted(labels_drawn)
    codes = np.unique(y, return_inverse=True)[1]
    np.testing.assert_array_equal(sample_few_shot(codes, k, random_state=seed), drawn)


def test_few_shot_samples_are_uniform_and_leave_global_seeds_alone():
    """Every image is drawn about as often, and NumPy's global stream does not move."""
    before = np.random.get_state()[1].tolist()  # noqa: NPY002 (that it is not used is the point)
    y = [0] * 5 + [1] * 10
    drawn = [sample_few_shot(y, 2, random_state=seed) for seed in range(2000)]
    share = np.bincount(np.concatenate(drawn)) / len(drawn)
    np.testing.assert_allclose(share, [2 / 5] * 5 + [2 / 10] * 10, atol=0.05)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@pytest.mark.parametrize("k", [0, -1, 2.5, "4"])
def test_few_shot_needs_a_positive_integer(k):
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"n_shots must be an integer of at least 1\. Got"):
        sample_few_shot(["a", "b"], k)


@pytest.mark.parametrize("y", [[], np.array([], dtype=str)])
def test_few_shot_needs_labels(y):
    """An empty y is said to be empty."""
    with pytest.raises(ValueError, match="y holds no labels to draw from"):
        sample_few_shot(y, 1)


@pytest.fixture
def folder(tmp_path):
    for name, file in [("zebra", "b.PNG"), ("zebra", "a.jpg"), ("ant bear", "sub/c.webp")]:
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "zebra" / ".hidden.png").write_text("no image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "zebra" / ".thumbs").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "zebra" / ".thumbs" / "a.jpg")
    (tmp_path / "zebra" / "album.jpg").mkdir()
    return tmp_path


def listed(folder):
    """Paths that load_image_folder gives, relative to the folder, and the labels."""
    paths, y = load_image_folder(folder)
    return [Path(p).relative_to(folder).as_posix() for p in paths], y.tolist()


def test_image_folder_lists_images_by_class(folder):
    """Paths and labels, sorted, without what is hidden."""
    paths, y = listed(folder)
    assert paths == ["ant bear/sub/c.webp", "zebra/a.jpg", "zebra/b.PNG"]
    assert y == ["ant bear", "zebra", "zebra"]


def test_image_folder_says_what_it_passes_over(folder):
    """Files of other kinds, and files outside of the class folders, are counted and named."""
    for name in ["zebra/notes.txt", "zebra/raw.nef", "ant bear/README", "labels.csv"]:
        (folder / name).write_text("no image")
    with pytest.warns(
        UserWarning, match=r"passed over 4 of the files .* ant bear.README, zeb.*, …"
    ):
        paths, _ = listed(folder)
    assert len(paths) == 3


def test_image_folder_takes_what_the_decoder_reads(folder):
    """Endings of all formats that are decoded, and files without one that begin like images."""
    endings = [ending for endings in FORMATS.values() for ending in endings]
    for ending in endings:
        (folder / "zebra" / f"picture{ending.upper()}").touch()
    Image.new("RGB", (4, 4)).save(folder / "ant bear" / "scan", "JPEG")
    paths, _ = listed(folder)
    assert len(paths) == 4 + len(endings)
    assert "ant bear/scan" in paths


def test_every_format_is_recognised_by_how_it_begins():
    """A file without an ending is known by its first bytes, in each format that Pillow writes."""
    for name, content in FILES:
        assert looks_like_image(content[:PREFIX_BYTES]), name
    for content in [b"", b"a text", b"%PDF-1.4", b"<svg>"]:
        assert not looks_like_image(content)


def test_image_folder_says_what_is_missing(folder):
    """No folder, no class folders, a class folder without images."""
    with pytest.raises(ValueError, match="is not a folder"):
        load_image_folder(folder / "nowhere")
    with pytest.raises(ValueError, match="holds no folders"):
        load_image_folder(folder / "ant bear" / "sub")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"class folders \['empty'\] .* hold no images"):
        load_image_folder(folder)


def link(path, target):
    """Make a link, or skip the test if users may not."""
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("this system lets users make no links")


def test_image_folder_follows_links_to_elsewhere(tmp_path):
    """A linked class, a linked folder in a class, and circles there; each photo has one label."""
    cat, more, other = (tmp_path / "elsewhere" / name for name in ("cat", "more", "other"))
    dog = tmp_path / "root" / "dog"
    for parent in (cat, more, other, dog):
        parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(parent / "1.png")
    link(dog.with_name("cat"), cat)
    link(dog / "a", more)
    link(more / "again", more)
    link(more / "up", more.parent)
    link(more / "x", other)
    link(other / "back", more)
    with pytest.warns(UserWarning, match=r"passed over 2 of .*dog/a/again, dog/a/up"):
        paths, y = load_image_folder(dog.parent)
    found = [Path(path).relative_to(dog.parent).as_posix() for path in paths]
    assert found == ["cat/1.png", "dog/1.png", "dog/a/1.png", "dog/a/x/1.png"]
    assert y.tolist() == ["cat", "dog", "dog", "dog"]


def test_image_folder_passes_over_links_within(tmp_path):
    """They would give a photo a second label; dead links are named, too."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    link(tmp_path / "dog" / "a", tmp_path)
    link(tmp_path / "dog" / "b", tmp_path / "cat")
    link(tmp_path / "bird", tmp_path / "gone")
    link(tmp_path / "dog" / "dead.png", tmp_path / "gone.png")
    with pytest.warns(UserWarning, match=r"passed over 3 of .*: dog/a, dog/b, bird"):
        paths, y = load_image_folder(tmp_path)
    found = [Path(path).relative_to(tmp_path).as_posix() for path in paths]
    assert found == ["cat/1.png", "dog/1.png", "dog/dead.png"]
    assert y.tolist() == ["cat", "dog", "dog"]
    with pytest.warns(UserWarning, match="passed over 3 of|left out 1 of") as caught:
        assert len(load_image_folder(tmp_path, on_error="warn")[0]) == 2
    assert "left out 1 of the images" in str(caught[-1].message)


def test_image_folder_leaves_out_what_cannot_be_read(folder):
    """With on_error="warn" the rest is returned, and the warning names files and reasons."""
    (folder / "zebra" / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    assert len(listed(folder)[0]) == 4
    with pytest.warns(UserWarning, match=r"left out 1 of the images .* zebra.cut.jpg \(.+\)"):
        paths, y = load_image_folder(folder, on_error="warn")
    assert [Path(path).name for path in paths] == ["c.webp", "a.jpg", "b.PNG"]
    assert y.tolist() == ["ant bear", "zebra", "zebra"]
    (folder / "ant bear" / "sub" / "c.webp").write_bytes(b"RIFF")
    with (
        pytest.warns(UserWarning, match="left out 2 of the images"),
        pytest.raises(ValueError, match=r"\['ant bear'\] .* hold no image that can be read"),
    ):
        load_image_folder(folder, on_error="warn")
    with pytest.raises(ValueError, match=r"on_error must be 'raise' or 'warn'\. Got 'skip'"):
        load_image_folder(folder, on_error="skip")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's, of a cut TIFF
@pytest.mark.parametrize("name", sorted({name for name, _ in FILES}))
def test_every_format_is_tried_as_the_decoder_reads_it(folder, name):
    """on_error="warn" keeps whole images of each format that Pillow writes, and drops cut ones."""
    content = dict(FILES)[name]
    (folder / "zebra" / "whole").write_bytes(content)
    (folder / "zebra" / "cut.png").write_bytes(content[:20])
    with pytest.warns(UserWarning, match=r"left out 1 of the images .*cut.png"):
        paths, _ = load_image_folder(folder, on_error="warn")
    assert "whole" in [Path(path).name for path in paths]


def test_digit_images_have_their_words():
    """Images in [0, 1], their labels, and a name for each label."""
    images, y, names = load_digit_images()
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 1)
    assert [names[label] for label in y[:3]] == ["zero", "one", "two"]
    assert len(names) == len(set(y))

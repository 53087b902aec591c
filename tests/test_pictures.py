"""The pictures of the README: they can be drawn again, show what they say, and are small."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_pictures
from utils import config
from utils.data import hand_images, image_files, label_csv
from utils.notebooks import pictures

README = (config.PROJECT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path):
    """A project with hands, labels, and a report with a figure in colour."""
    for number, (folder, prefix) in enumerate(
        (("real_hands", "real_hand"), ("GAN_hands", "username"), ("VAE_hands", "username"), ("test_hands", "test_hand"))
    ):
        image_files.write_jpegs(draw_pictures(40, seed=number), tmp_path / folder, prefix, 40)
    names = sorted(path.name for path in (tmp_path / "test_hands").iterdir())
    label_csv.write(tmp_path / "username_classified_hands.csv", names, [i % 3 for i in range(len(names))])
    (tmp_path / "docs").mkdir()
    (tmp_path / "fashion_mnist").mkdir()
    (tmp_path / "fashion_mnist" / "report.md").write_text("# R\n\n![Samples](f.png)\n", encoding="utf-8")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "fashion_mnist" / "f.png")
    return tmp_path


def test_all_pictures_of_the_readme_are_drawn(project):
    drawn = pictures.draw(project)
    wanted = re.findall(r"!\[[^\]]+\]\((docs/pictures/[^)]+)\)", README)
    assert sorted(path.relative_to(project).as_posix() for path in drawn) == sorted(wanted) and len(wanted) == 5
    for path in drawn:
        with Image.open(path) as picture:
            assert np.ptp(np.asarray(picture.convert("RGB"))) > 100
    with Image.open(project / "docs" / "pictures" / "garments.png") as picture:
        assert picture.mode == "RGB"  # faces may have colours


def test_the_first_test_images_of_each_label_are_shown(project):
    rows = pictures.classes(project)
    given = label_csv.read(project / "username_classified_hands.csv")
    assert [name.removeprefix("called ") for name in rows] == list(config.CLASSES)
    for label, shown in enumerate(rows.values()):
        first = [name for name, found in given.items() if found == label][: pictures.COUNT]
        for name, image in zip(first, shown, strict=True):
            assert (np.asarray(Image.open(project / "test_hands" / name)) == image[0]).all()


def test_stand_ins_are_not_shown_as_real_hands(project):
    for path in (project / "real_hands").iterdir():
        path.rename(path.with_name(path.name.replace("real_hand_", hand_images.STAND_IN_PREFIX)))
    with pytest.raises(ValueError, match="does not hold the course's images"):
        pictures.draw(project)
    assert not (project / "docs" / "pictures").exists()


def test_the_committed_pictures_are_small():
    for path in (config.PROJECT / "docs" / "pictures").iterdir():
        assert path.stat().st_size < 200_000, path.name

"""WIDER Attribute: its annotation, its rules, the published folder and archives, and the real files."""

import gzip
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fairkd_jax.data.catalog import complete_options, normalize_options
from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.data.wider_attribute import rules
from fairkd_jax.data.wider_attribute.annotation import parse_annotation
from fairkd_jax.data.wider_attribute.scenes import CLASS_NAMES, CLASS_OF_SCENE, SCENES
from fairkd_jax.errors import UsageError

SHARED = Path(__file__).parents[3] / "shared" / "data"
# Published figures for the fraction rule: male and female images of each class.
REFERENCE = (
    (801, 193),
    (266, 181),
    (237, 183),
    (102, 82),
    (216, 345),
    (81, 33),
    (16, 63),
    (233, 72),
    (230, 60),
    (42, 214),
    (248, 49),
    (36, 52),
    (153, 45),
    (210, 82),
    (192, 138),
    (199, 134),
)


def image(number, split="train", scene=0, genders=(1,)):
    targets = [{"attribute": [gender, *[0] * 13], "bbox": [-3.5, 2.0, 10.0, 20.0]} for gender in genders]
    name = f"{split}/{scene}--{SCENES[scene]}/{scene}_{number}.jpg"
    return {"file_name": name, "scene_id": scene, "targets": targets}


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    splits = ["train"] * 30 + ["val"] * 10 + ["test"] * 20
    return [
        image(i, split, scene=(0, 2, 13)[i % 3], genders=rng.choice([1, -1, 0], rng.integers(1, 4)).tolist())
        for i, split in enumerate(splits)
    ]


@pytest.fixture
def write_wider(tmp_path, encoded):
    """Returns a function (images, drop, broken) -> a folder with WIDER/ in the published layout."""

    def make(images, drop=(), broken=(), name="published"):
        root = tmp_path / name / "WIDER"
        (root / "Annotations").mkdir(parents=True)
        scene_id_map = {str(i): scene for i, scene in enumerate(SCENES)}
        for part, splits in (("trainval", ("train", "val")), ("test", ("test",))):
            own = [entry for entry in images if entry["file_name"].split("/")[0] in splits]
            content = {"images": own, "attribute_id_map": {"0": "Male"}, "scene_id_map": scene_id_map}
            (root / "Annotations" / f"wider_attribute_{part}.json").write_text(json.dumps(content))
        for seed, entry in enumerate(images):
            if seed not in drop:
                path = root / "Image" / entry["file_name"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"\xff\xd8broken" if seed in broken else encoded(seed))
        return root.parent

    return make


def pack(folder, target, extra=()):
    """The two published archives of a folder."""
    target.mkdir()
    with zipfile.ZipFile(target / "wider_attribute_annotation.zip", "w") as archive:
        for path in sorted((folder / "WIDER" / "Annotations").iterdir()):
            archive.write(path, f"Annotations/{path.name}")
    with tarfile.open(target / "wider_attribute_image.tgz", "w:gz") as archive:
        archive.add(folder / "WIDER" / "Image", "Image")
        for name in extra:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return target


def open_wider(source, directory, **options):
    return open_dataset("wider_attribute", source=str(source), directory=directory, size=8, **options)


def test_every_scene_has_its_class():
    assert len(SCENES) == 30
    assert len(CLASS_NAMES) == 16
    assert Counter(CLASS_OF_SCENE) == dict(enumerate((4, 3, 1, 1, 3, 1, 1, 2, 3, 1, 2, 1, 1, 2, 2, 2)))
    assert CLASS_OF_SCENE[29] == CLASS_NAMES.index("Team_Sports")
    assert CLASS_OF_SCENE[7] == CLASS_NAMES.index("Business")


def test_group_rules():
    male, female, unspecified = np.array([[2, 1, 1, 0, 0], [1, 2, 1, 0, 1], [0, 0, 0, 2, 1]])
    assert rules.assign_majority_groups(male, female, unspecified).tolist() == [0, 1, -1, -1, 1]
    assert rules.assign_fraction_groups(male, female, unspecified).tolist() == [0, 1, 0, 1, 1]
    # A person whose gender is not specified counts in the fraction, but not in the majority.
    assert rules.assign_fraction_groups(*np.array([[1], [0], [2]])).tolist() == [1]
    assert rules.assign_majority_groups(*np.array([[1], [0], [2]])).tolist() == [0]


def test_the_half_test_split_halves_the_test_images_of_each_scene():
    ids = [f"{i}.jpg" for i in range(400)]
    scenes = np.arange(400) % 4
    splits = np.array(["train"] * 160 + ["val"] * 40 + ["test"] * 200)
    made = rules.assign_half_test_splits(splits, scenes, ids, 0)
    for scene in range(4):
        own = made[scenes == scene]
        assert Counter(own.tolist()) == {"train": 67, "val": 8, "test": 25}
    assert set(made[:200]) == {"train", "val"}
    assert {"train", "val", "test"} == set(made[200:])
    np.testing.assert_array_equal(made, rules.assign_half_test_splits(splits, scenes, ids, 0))
    assert (made != rules.assign_half_test_splits(splits, scenes, ids, 1)).any()
    # An image's place among the others does not depend on where it is listed.
    order = np.random.default_rng(0).permutation(400)
    shuffled = rules.assign_half_test_splits(splits[order], scenes[order], [ids[i] for i in order], 0)
    np.testing.assert_array_equal(shuffled, made[order])


def test_rules_change_without_preparing_again(write_wider, images, tmp_path, capsys):
    folder = write_wider(images)
    first = open_wider(folder, tmp_path / "data")
    assert first.info.num_examples == {"train": 30, "val": 10, "test": 20}
    assert "decoded 60 images" in capsys.readouterr().err
    fraction = open_wider(folder, tmp_path / "data", group_rule="fraction", split_rule="half_test")
    assert "decoded" not in capsys.readouterr().err
    assert sum(fraction.info.num_examples.values()) == 60
    assert fraction.info.num_examples["test"] == 11
    assert (np.concatenate([fraction.split(s).groups for s in ("train", "val", "test")]) >= 0).all()
    by_name = {entry["file_name"]: entry for entry in images}
    pixels = {
        name: first.split(s).read_images()[i]
        for s in ("train", "val", "test")
        for i, name in enumerate(first.split(s).ids)
    }
    for name in ("train", "val", "test"):
        split = fraction.split(name)
        for i, file_name in enumerate(split.ids):
            genders = [target["attribute"][0] for target in by_name[file_name]["targets"]]
            assert split.groups[i] == (0 if genders.count(1) / len(genders) >= 0.5 else 1)
            assert split.labels[i] == CLASS_OF_SCENE[by_name[file_name]["scene_id"]]
            np.testing.assert_array_equal(split[i]["image"], pixels[file_name])
    assert fraction.split("test").compute_digest() != first.split("test").compute_digest()
    # The rules do not need the source again.
    again = open_wider("", tmp_path / "data", group_rule="fraction", split_rule="half_test")
    assert again.split("test").compute_digest() == fraction.split("test").compute_digest()


def test_the_earlier_name_of_the_half_test_rule_gives_the_same_data(write_wider, images, tmp_path):
    folder = write_wider(images)
    half_test, capstone = (
        open_wider(folder, tmp_path / "data", split_rule=rule) for rule in ("half_test", "capstone")
    )
    assert capstone.info == half_test.info
    for name in ("train", "val", "test"):
        assert capstone.split(name).compute_digest() == half_test.split(name).compute_digest()
    earlier = {"split_rule": "capstone", "split_seed": 3}
    present = {"split_rule": "half_test", "split_seed": 3}
    assert normalize_options("wider_attribute", earlier) == present
    assert normalize_options("wider_attribute", present) == present
    assert normalize_options("utkface", earlier) == earlier
    assert complete_options("wider_attribute", earlier) == {"group_rule": "majority", **present}


def test_folder_and_archives_give_the_same(write_wider, images, tmp_path):
    folder = write_wider(images)
    archives = pack(folder, tmp_path / "archives")
    plain = open_wider(folder / "WIDER", tmp_path / "plain")
    packed = open_wider(archives, tmp_path / "packed")
    for name in ("train", "val", "test"):
        assert plain.split(name).compute_digest() == packed.split(name).compute_digest()
        np.testing.assert_array_equal(plain.split(name).read_images(), packed.split(name).read_images())


def test_faults_are_named_and_counted(write_wider, images, tmp_path, capsys):
    images[0]["targets"] = []
    images[1]["scene_id"] = 30
    images[2]["targets"][0]["attribute"][0] = 7
    images[3]["file_name"] = "train/../../etc/passwd.jpg"
    images[4]["targets"] = [{"bbox": [0, 0, 1, 1]}]
    images[7]["file_name"] = f"train/0--Parade/{'a' * 300}.jpg"
    folder = write_wider(images, drop=(3, 5, 7), broken=(6,))
    with pytest.raises(UsageError, match=r"8 of 60 files are bad, more than max_bad_fraction=0\.01"):
        open_wider(folder, tmp_path / "data")
    dataset = open_wider(folder, tmp_path / "data", max_bad_fraction=0.2)
    assert sum(dataset.info.num_examples.values()) == 52
    printed = capsys.readouterr().err
    for reason in (
        "no persons are annotated",
        "unknown scene 30",
        "a person's gender is none of 1, -1 and 0",
        "not of the form split/folder/name.jpg",
        "a person has no attributes",
        "the image is absent",
    ):
        assert reason in printed
    archives = pack(folder, tmp_path / "archives")
    packed = open_wider(archives, tmp_path / "packed", max_bad_fraction=0.2)
    assert packed.info.num_examples == dataset.info.num_examples


def test_annotations_that_are_none_are_refused(write_wider, images, tmp_path):
    folder = write_wider(images)
    path = folder / "WIDER" / "Annotations" / "wider_attribute_test.json"
    whole = path.read_text()
    for content, message in (
        (whole[:500], "is cut short or not JSON"),
        ("[]", "lists no images"),
        ('{"images": []}', "lists no images"),
        (whole.replace("Parade", "Rally"), "has other scenes than WIDER Attribute"),
    ):
        path.write_text(content)
        with pytest.raises(UsageError, match=message) as error:
            open_wider(folder, tmp_path / "data")
        assert "\n" not in str(error.value)
    for file in (folder / "WIDER" / "Annotations").iterdir():
        file.unlink()
    with pytest.raises(UsageError, match=r"holds none of wider_attribute_trainval\.json"):
        open_wider(folder, tmp_path / "data")


def test_archives_that_harm_are_refused(write_wider, images, tmp_path):
    folder = write_wider(images)
    archives = pack(folder, tmp_path / "archives", extra=["Image/../../../etc/evil.jpg"])
    with pytest.raises(UsageError, match="a member whose name points outside"):
        open_wider(archives, tmp_path / "data")
    (archives / "wider_attribute_annotation.zip").write_bytes(b"PK\x03\x04cut")
    with pytest.raises(UsageError, match="is damaged or not a zip archive"):
        open_wider(archives, tmp_path / "data")
    with zipfile.ZipFile(archives / "wider_attribute_annotation.zip", "w") as archive:
        archive.writestr("../wider_attribute_test.json", "{}")
    with pytest.raises(UsageError, match="a member whose name points outside"):
        open_wider(archives, tmp_path / "data")


def test_an_absent_source_says_where_to_get_it(tmp_path):
    for source in ("", tmp_path):
        with pytest.raises(UsageError, match=r"wider_attribute_image\.tgz .* mmlab\.ie\.cuhk\.edu\.hk"):
            open_wider(source, tmp_path / "data")
    for option in ("group_rule", "split_rule"):
        with pytest.raises(UsageError, match=f"unknown {option} 'other'; use one of"):
            open_wider("", tmp_path / "data", **{option: "other"})


@pytest.mark.skipif(not SHARED.exists(), reason="the real annotation is not here")
def test_the_real_annotation_has_the_published_counts():
    with gzip.open(SHARED / "wider_attribute_test_5188.json.gz") as stream:
        records = parse_annotation("test", stream.read())
    assert len(records) == 5188
    assert not any(record.problem for record in records)
    persons = np.array([(r.male, r.female, r.unspecified) for r in records]).T
    groups = rules.assign_fraction_groups(*persons)
    labels = np.array([CLASS_OF_SCENE[record.scene] for record in records])
    counts = np.zeros((16, 2), int)
    np.add.at(counts, (labels, groups), 1)
    np.testing.assert_array_equal(counts, REFERENCE)


@pytest.mark.skipif(not SHARED.exists(), reason="the real images are not here")
def test_the_real_images_are_prepared(tmp_path):
    dataset = open_wider(SHARED / "wider_sample", tmp_path)
    assert dataset.info.num_examples == {"train": 60, "val": 16, "test": 24}
    assert set(dataset.split("train").labels) == {CLASS_NAMES.index("Parade"), CLASS_NAMES.index("Business")}
